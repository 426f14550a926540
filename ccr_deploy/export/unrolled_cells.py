"""ConvLSTM cells with all their iterations, which the schedules of `ccr_deploy.export.unroll` run in order.

Each iteration has its own copy of a convolution's module, with shared weights, so that the names in the
exported graph contain layer and iteration: ``cell2/t3/hidden_conv``.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ccr_deploy.models.conv_lstm import ConvLstmCell, ConvLstmCells, Gates, State, split_gates


class UnrolledStep(ConvLstmCell):
    """One iteration of one ConvLSTM cell, which shares the cell's weights.

    Without its own input convolution, its input is that convolution's output: gates ``[N, 4 * channels, …]``.
    """

    def __init__(self, cell: ConvLstmCell, *, first: bool, own_input_conv: bool) -> None:
        nn.Module.__init__(self)  # not the constructor of the cell, which would create new weights
        self.input_conv = copy.copy(cell.input_conv) if own_input_conv else nn.Identity()
        if not first:
            self.hidden_conv = copy.copy(cell.hidden_conv)
        self.gates = Gates()


class LateSumStep(UnrolledStep):
    """One iteration, which adds the two convolutions after it has split both into the four gates.

    The result is the same. But TensorRT fuses a sum before the split into the hidden convolution, and then
    copies this iteration's part of a batched input convolution if the batch is dynamic. After the split, the
    sum becomes a part of the gates' kernel, which reads the part where it is.
    """

    def forward(self, x: Tensor, state: State | None) -> State:
        """Return the state after input gates `x`; a state of None is zero."""
        if state is None:
            return super().forward(x, state)
        hidden, cell = state
        summands = zip(split_gates(self.input_conv(x)), split_gates(self.hidden_conv(hidden)), strict=True)
        return self.gates.new_state(tuple(first + second for first, second in summands), cell)


class BatchedInputConv(nn.Module):
    """One convolution for all iterations, whose inputs are concatenated along the batch."""

    def __init__(self, input_conv: nn.Module) -> None:
        super().__init__()
        self.input_conv = input_conv

    def forward(self, hidden_states: list[Tensor]) -> list[Tensor]:
        """Return the gates of all iterations from their inputs."""
        gates = self.input_conv(torch.cat(hidden_states))
        # Not `chunk`, which makes the batch dimension of the exported graph static. In the graph it becomes
        # one Split (`ccr_deploy.export.split`).
        return list(gates.unflatten(0, (len(hidden_states), -1)).unbind(0))


class UnrolledCell(nn.Module):
    """All iterations of one ConvLSTM cell, as sub-modules ``t1`` to ``tT``.

    With `shared_input_conv` the cell has one input convolution, whose gates all iterations share, or which
    runs on all iterations as one batch (`batched`). Otherwise each iteration has its own copy. `late_sum`
    makes each iteration a `LateSumStep`.
    """

    input_conv: nn.Module
    batched: BatchedInputConv

    def __init__(
        self,
        cell: ConvLstmCell,
        iterations: int,
        *,
        shared_input_conv: bool,
        zero_state: bool = False,
        late_sum: bool = False,
    ) -> None:
        super().__init__()
        self.iterations = iterations
        if shared_input_conv:
            self.input_conv = cell.input_conv
        for t in range(1, iterations + 1):
            first = t == 1 and not zero_state
            kind = LateSumStep if late_sum else UnrolledStep
            self.add_module(f"t{t}", kind(cell, first=first, own_input_conv=not shared_input_conv))

    def step(self, t: int) -> UnrolledStep:
        """Return iteration `t` of the cell, counted from 1."""
        step = self.get_submodule(f"t{t}")
        assert isinstance(step, UnrolledStep)
        return step

    def forward(self, gates: list[Tensor]) -> list[Tensor]:
        """Return the hidden states of all iterations from their input gates."""
        state: State | None = None
        hidden_states = []
        for t in range(1, self.iterations + 1):
            state = self.step(t)(gates[t - 1], state)
            hidden_states.append(state[0])
        return hidden_states


class ZeroState(nn.Module):
    """The state of a cell before the first iteration.

    It is computed from the image's values and not from its shape, because ONNX Runtime runs operators on
    shapes on the CPU, also if a GPU is used.
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
            self.cell_count += 1
            self.add_module(f"cell{self.cell_count}", self.unrolled_cell(cell))

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """Unroll the next cell of this network; subclasses override it."""
        return UnrolledCell(cell, self.iterations, shared_input_conv=False)

    def cell(self, number: int) -> UnrolledCell:
        """Return cell `number`, counted from 1."""
        cell = self.get_submodule(f"cell{number}")
        assert isinstance(cell, UnrolledCell)
        return cell

    def run_iteration(self, t: int, features: Tensor, states: list[State | None]) -> Tensor:
        """Run iteration `t` of all cells.

        Args:
            t: the iteration, counted from 1.
            features: the input of the first cell, ``float32 [N, C, h, w]``.
            states: the state of each cell, None for a zero state; replaced by the new states.

        Returns:
            The output of the last cell.
        """
        for index, state in enumerate(states):
            states[index] = new = self.cell(index + 1).step(t)(features, state)
            features = self.cell_output(new)
        return features


def copies(conv: nn.Conv2d, iterations: int) -> nn.ModuleDict:
    """Copy a convolution once per iteration, as ``t1`` to ``tT``; the copies share its weights."""
    # `copy.copy` copies the module but not its parameters, which stay shared.
    return nn.ModuleDict({f"t{t}": copy.copy(conv) for t in range(1, iterations + 1)})
