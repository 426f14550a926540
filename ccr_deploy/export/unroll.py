"""The recurrence as a feed-forward network: schedules for the encoder's T iterations.

Every iteration reads the same image, so much of the work does not depend on the iteration:

================  ==========================================================================
``plain``         the naive unrolling: everything T times, from explicit zero states
``iteration-major``  iteration after iteration; stem and first input convolution once
``layer-major``   layer after layer: a layer runs all T iterations before the next one starts,
                  so that its T input convolutions are one convolution of T times the batch
================  ==========================================================================

The last two also leave out the hidden convolutions of the first iteration, whose state is zero. All
three run the binarizer's convolution on the last iteration alone (``plain`` computes it T times, and
every exporter drops what nothing reads).

Convolutions are copied per iteration without copying their weights: each copy is a module of its own,
so that the exported graph's names say layer and iteration (``cell2/t3/hidden_conv``).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ccr_deploy.models.binarizer import sign
from ccr_deploy.models.conv_lstm import ConvLstmCell, ConvLstmCells, Gates, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccr_deploy.core.stages import Schedule
    from ccr_deploy.models.chain import BaselineChain
    from ccr_deploy.models.encoder import RecurrentEncoder


class UnrolledStep(ConvLstmCell):
    """One iteration of one ConvLSTM cell, sharing the cell's weights.

    Without an input convolution of its own it takes that one's gates ``[N, 4 * channels, …]``.
    """

    def __init__(self, cell: ConvLstmCell, *, first: bool, own_input_conv: bool) -> None:
        nn.Module.__init__(self)  # the cell's own would make new weights
        self.input_conv = copy.copy(cell.input_conv) if own_input_conv else nn.Identity()
        if not first:
            self.hidden_conv = copy.copy(cell.hidden_conv)
        self.gates = Gates()


class BatchedInputConv(nn.Module):
    """One convolution for all iterations: joined along the batch, and taken apart again."""

    def __init__(self, input_conv: nn.Module) -> None:
        super().__init__()
        self.input_conv = input_conv

    def forward(self, hidden_states: list[Tensor]) -> list[Tensor]:
        """Every iteration's gates, from every iteration's input."""
        gates = self.input_conv(torch.cat(hidden_states))
        # Not chunk: in an exported graph that freezes the batch dimension.
        return list(gates.unflatten(0, (len(hidden_states), -1)).unbind(0))


class UnrolledCell(nn.Module):
    """All iterations of one ConvLSTM cell, as sub-modules ``t1`` to ``tT``.

    With `shared_input_conv` the cell has one input convolution, for gates that all iterations share
    or that one batched convolution gives (`batched`); otherwise each iteration has its own.
    """

    input_conv: nn.Module
    batched: BatchedInputConv

    def __init__(
        self, cell: ConvLstmCell, iterations: int, *, shared_input_conv: bool, zero_state: bool = False
    ) -> None:
        super().__init__()
        self.iterations = iterations
        if shared_input_conv:
            self.input_conv = cell.input_conv
        for t in range(1, iterations + 1):
            first = t == 1 and not zero_state
            self.add_module(f"t{t}", UnrolledStep(cell, first=first, own_input_conv=not shared_input_conv))

    def step(self, t: int) -> UnrolledStep:
        """The cell's iteration `t`, counted from 1."""
        step = self.get_submodule(f"t{t}")
        assert isinstance(step, UnrolledStep)
        return step

    def forward(self, gates: list[Tensor]) -> list[Tensor]:
        """The hidden states of all iterations, from each one's input gates."""
        state: State | None = None
        hidden_states = []
        for t in range(1, self.iterations + 1):
            state = self.step(t)(gates[t - 1], state)
            hidden_states.append(state[0])
        return hidden_states


class ZeroState(nn.Module):
    """A cell's state before the first iteration.

    It is computed from the image's values, not from its shape: what is computed from a shape ONNX Runtime
    leaves to the CPU, also beside a GPU.
    """

    def __init__(self, channels: int, downsampling: int) -> None:
        super().__init__()
        self.channels = channels
        self.downsampling = downsampling

    def forward(self, image: Tensor) -> Tensor:
        """Return zeros ``[N, channels, H/downsampling, W/downsampling]`` for images ``[N, 3, H, W]``."""
        step = self.downsampling
        return image[:, :1, ::step, ::step] * torch.zeros(1, self.channels, 1, 1)


class UnrolledNetwork(nn.Module):
    """Recurrent cells named ``cell1``, ``cell2``, … with all their iterations."""

    def __init__(self, cells: ConvLstmCells, iterations: int) -> None:
        super().__init__()
        self.iterations = iterations
        self.cell_output = cells.cell_output
        self.cell_count = 0
        for cell in cells:
            assert isinstance(cell, ConvLstmCell)
            self.cell_count += 1
            self.add_module(f"cell{self.cell_count}", self.unrolled_cell(cell))

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """How this network's next cell is unrolled."""
        return UnrolledCell(cell, self.iterations, shared_input_conv=False)

    def cell(self, number: int) -> UnrolledCell:
        """The cell `number`, counted from 1."""
        cell = self.get_submodule(f"cell{number}")
        assert isinstance(cell, UnrolledCell)
        return cell

    def run_iteration(self, t: int, features: Tensor, states: list[State | None]) -> Tensor:
        """Run iteration `t` of all cells.

        Args:
            t: the iteration, counted from 1.
            features: what the first cell's iteration takes.
            states: each cell's state, None for a zero state; the new ones are put in their places.

        Returns:
            What the last cell passes on.
        """
        for index, state in enumerate(states):
            states[index] = new = self.cell(index + 1).step(t)(features, state)
            features = self.cell_output(new)
        return features


class UnrolledEncoder(UnrolledNetwork):
    """An encoder up to its pre-binarization activations, in the order of some schedule.

    It shares the weights of the network that it is made of.
    """

    stem: nn.Module
    shares_repeated_work = True
    """Whether equal computations may become one in its graph."""

    def __init__(self, encoder: RecurrentEncoder, iterations: int) -> None:
        super().__init__(encoder.cells, iterations)
        self.stem = encoder.stem
        self.binarizer = encoder.binarizer.conv


class PlainEncoder(UnrolledEncoder):
    """Iteration after iteration from explicit zero states, with nothing hoisted."""

    stem: nn.ModuleDict
    shares_repeated_work = False

    def __init__(self, encoder: RecurrentEncoder, iterations: int) -> None:
        super().__init__(encoder, iterations)
        for number, channels in enumerate(encoder.cell_channels, start=1):
            zeros = ZeroState(channels, downsampling=2 ** (number + 1))
            self.cell(number).add_module("t0", nn.ModuleDict({"hidden_state": zeros}))
        self.stem = copies(encoder.stem, iterations)

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """Hidden convolutions in the first iteration too."""
        return UnrolledCell(cell, self.iterations, shared_input_conv=False, zero_state=True)

    def forward(self, image: Tensor) -> Tensor:
        """The pre-binarization activations ``[N, C, H/16, W/16]`` of normalised images ``[N, 3, H, W]``."""
        states: list[State | None] = []
        for number in range(1, self.cell_count + 1):
            zeros = self.get_submodule(f"cell{number}.t0.hidden_state")(image)
            states.append((zeros, zeros))
        for t in range(1, self.iterations + 1):
            features = self.run_iteration(t, self.stem[f"t{t}"](image), states)
        return self.binarizer(features)


class IterationMajorEncoder(UnrolledEncoder):
    """Iteration after iteration; what no iteration changes is computed once."""

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """The first cell reads the same features in every iteration."""
        return UnrolledCell(cell, self.iterations, shared_input_conv=self.cell_count == 1)

    def forward(self, image: Tensor) -> Tensor:
        """The pre-binarization activations ``[N, C, H/16, W/16]`` of normalised images ``[N, 3, H, W]``."""
        first_gates = self.cell(1).input_conv(self.stem(image))
        states: list[State | None] = [None] * self.cell_count
        for t in range(1, self.iterations + 1):
            features = self.run_iteration(t, first_gates, states)
        return self.binarizer(features)


class LayerMajorEncoder(UnrolledEncoder):
    """Layer after layer; a layer's T input convolutions are one convolution of T times the batch."""

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """One input convolution for all iterations."""
        unrolled = UnrolledCell(cell, self.iterations, shared_input_conv=True)
        unrolled.batched = BatchedInputConv(unrolled.input_conv)
        return unrolled

    def forward(self, image: Tensor) -> Tensor:
        """The pre-binarization activations ``[N, C, H/16, W/16]`` of normalised images ``[N, 3, H, W]``."""
        first_gates = self.cell(1).input_conv(self.stem(image))
        hidden_states = self.cell(1)([first_gates] * self.iterations)
        for number in range(2, self.cell_count + 1):
            hidden_states = self.cell(number)(self.cell(number).batched(hidden_states))
        return self.binarizer(hidden_states[-1])


class UnrolledBaseline(nn.Module):
    """The conventional chain: encoder and decoder in the residual loop, then the whole ResNet-18.

    Every iteration encodes another residual, so nothing is hoisted but the zero first states.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, chain: BaselineChain) -> None:
        super().__init__()
        self.iterations = chain.config.iterations
        self.encoder = UnrolledNetwork(chain.encoder.cells, self.iterations)
        self.stem = copies(chain.encoder.stem, self.iterations)
        self.binarizer = copies(chain.encoder.binarizer.conv, self.iterations)
        self.decoder = UnrolledNetwork(chain.decoder.cells, self.iterations)
        self.output = copies(chain.decoder.output, self.iterations)
        self.classifier = chain.classifier
        self.register_buffer("mean", chain.mean, persistent=False)
        self.register_buffer("std", chain.std, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """The logits ``[N, classes]`` of normalised images ``[N, 3, H, W]``."""
        encoder_states: list[State | None] = [None] * self.encoder.cell_count
        decoder_states: list[State | None] = [None] * self.decoder.cell_count
        residual = image
        for t in range(1, self.iterations + 1):
            features = self.encoder.run_iteration(t, self.stem[f"t{t}"](residual), encoder_states)
            code = sign(self.binarizer[f"t{t}"](features))
            features = self.decoder.run_iteration(t, code, decoder_states)
            residual = residual - torch.tanh(self.output[f"t{t}"](features)) / 2
        return self.classifier((image - residual) * self.std + self.mean)


def copies(conv: nn.Conv2d, iterations: int) -> nn.ModuleDict:
    """The convolution once per iteration, as ``t1`` to ``tT``; all share its weights."""
    return nn.ModuleDict({f"t{t}": copy.copy(conv) for t in range(1, iterations + 1)})


UNROLLED: Mapping[Schedule, type[UnrolledEncoder]] = {
    "plain": PlainEncoder,
    "iteration-major": IterationMajorEncoder,
    "layer-major": LayerMajorEncoder,
}
"""Every schedule of `ccr_deploy.core.stages`."""


def unroll(encoder: RecurrentEncoder, iterations: int, schedule: Schedule) -> UnrolledEncoder:
    """Return the encoder unrolled up to the pre-binarization activations; it shares the encoder's weights.

    Args:
        encoder: the network.
        iterations: T.
        schedule: the order in which the iterations become graph nodes.
    """
    return UNROLLED[schedule](encoder, iterations).eval()
