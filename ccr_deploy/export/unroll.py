"""Unroll the recurrence to a feed-forward network: schedules for the encoder's T iterations.

Every iteration reads the same image, so that much of the work does not depend on the iteration:

===================  ==========================================================================
``plain``            naive unrolling: all work T times, starting with explicit zero states
``iteration-major``  iteration after iteration; stem and first input convolution only once
``layer-major``      layer after layer: a layer runs all T iterations before the next one starts,
                     so that its T input convolutions are one convolution of T times the batch
===================  ==========================================================================

The last two also omit the hidden convolutions of the first iteration, whose state is zero. All three run the
binarizer's convolution only on the last iteration: no output depends on the others, and an exporter would
remove them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ccr_deploy.export.unrolled_cells import (
    BatchedInputConv,
    UnrolledCell,
    UnrolledNetwork,
    ZeroState,
    copies,
)
from ccr_deploy.models.binarizer import sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccr_deploy.core.stages import Schedule
    from ccr_deploy.models.chain import BaselineChain
    from ccr_deploy.models.conv_lstm import ConvLstmCell, State
    from ccr_deploy.models.encoder import RecurrentEncoder


class UnrolledEncoder(UnrolledNetwork):
    """An unrolled encoder up to its pre-binarization activations; one subclass per schedule.

    It shares the weights of the recurrent encoder.
    """

    stem: nn.Module
    shares_repeated_work = True
    """Whether equal computations in its graph are merged."""

    def __init__(self, encoder: RecurrentEncoder, iterations: int) -> None:
        super().__init__(encoder.cells, iterations)
        self.stem = encoder.stem
        self.binarizer = encoder.binarizer.conv


class PlainEncoder(UnrolledEncoder):
    """Iteration after iteration, starting with explicit zero states; all work is repeated T times."""

    stem: nn.ModuleDict
    shares_repeated_work = False

    def __init__(self, encoder: RecurrentEncoder, iterations: int) -> None:
        super().__init__(encoder, iterations)
        for number, channels in enumerate(encoder.cell_channels, start=1):
            zeros = ZeroState(channels, downsampling=2 ** (number + 1))
            self.cell(number).add_module("t0", nn.ModuleDict({"hidden_state": zeros}))
        self.stem = copies(encoder.stem, iterations)

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """Unroll a cell with hidden convolutions in all iterations, including the first."""
        return UnrolledCell(cell, self.iterations, shared_input_conv=False, zero_state=True)

    def forward(self, image: Tensor) -> Tensor:
        """Return the activations ``[N, C, H/16, W/16]`` for normalised images ``[N, 3, H, W]``."""
        states: list[State | None] = []
        for number in range(1, self.cell_count + 1):
            zeros = self.get_submodule(f"cell{number}.t0.hidden_state")(image)
            states.append((zeros, zeros))
        for t in range(1, self.iterations + 1):
            features = self.run_iteration(t, self.stem[f"t{t}"](image), states)
        return self.binarizer(features)


class IterationMajorEncoder(UnrolledEncoder):
    """Iteration after iteration; work that does not depend on the iteration is done once."""

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """Unroll a cell; only the first one, whose input never changes, has a shared input convolution."""
        return UnrolledCell(cell, self.iterations, shared_input_conv=self.cell_count == 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the activations ``[N, C, H/16, W/16]`` for normalised images ``[N, 3, H, W]``."""
        first_gates = self.cell(1).input_conv(self.stem(image))
        states: list[State | None] = [None] * self.cell_count
        for t in range(1, self.iterations + 1):
            features = self.run_iteration(t, first_gates, states)
        return self.binarizer(features)


class LayerMajorEncoder(UnrolledEncoder):
    """Layer after layer; a layer's T input convolutions are one convolution of T times the batch."""

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """Unroll a cell with one input convolution for all iterations."""
        # The first cell's input gates are not part of a batched convolution.
        late_sum = self.cell_count > 1
        unrolled = UnrolledCell(cell, self.iterations, shared_input_conv=True, late_sum=late_sum)
        unrolled.batched = BatchedInputConv(unrolled.input_conv)
        return unrolled

    def forward(self, image: Tensor) -> Tensor:
        """Return the activations ``[N, C, H/16, W/16]`` for normalised images ``[N, 3, H, W]``."""
        first_gates = self.cell(1).input_conv(self.stem(image))
        hidden_states = self.cell(1)([first_gates] * self.iterations)
        for number in range(2, self.cell_count + 1):
            hidden_states = self.cell(number)(self.cell(number).batched(hidden_states))
        return self.binarizer(hidden_states[-1])


class UnrolledBaseline(nn.Module):
    """The conventional chain: encoder and decoder in the residual loop, then the whole ResNet-18.

    Every iteration encodes another residual, so that only the hidden convolutions of the zero states are
    omitted.
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
        """Return the logits ``[N, classes]`` for normalised images ``[N, 3, H, W]``."""
        encoder_states: list[State | None] = [None] * self.encoder.cell_count
        decoder_states: list[State | None] = [None] * self.decoder.cell_count
        residual = image
        for t in range(1, self.iterations + 1):
            features = self.encoder.run_iteration(t, self.stem[f"t{t}"](residual), encoder_states)
            code = sign(self.binarizer[f"t{t}"](features))
            features = self.decoder.run_iteration(t, code, decoder_states)
            residual = residual - torch.tanh(self.output[f"t{t}"](features)) / 2
        return self.classifier((image - residual) * self.std + self.mean)


UNROLLED: Mapping[Schedule, type[UnrolledEncoder]] = {
    "plain": PlainEncoder,
    "iteration-major": IterationMajorEncoder,
    "layer-major": LayerMajorEncoder,
}
"""The class of every schedule of `ccr_deploy.core.stages`."""


def unroll(encoder: RecurrentEncoder, iterations: int, schedule: Schedule) -> UnrolledEncoder:
    """Unroll an encoder up to the pre-binarization activations.

    Args:
        encoder: the recurrent encoder, whose weights the result shares.
        iterations: T, the number of iterations.
        schedule: the order in which the iterations become graph nodes.
    """
    return UNROLLED[schedule](encoder, iterations).eval()
