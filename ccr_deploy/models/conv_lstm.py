"""The convolutional LSTM cell of encoder and decoder.

Shi et al., "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting", NeurIPS
2015; with the kernel sizes of Toderici et al., "Full Resolution Image Compression with Recurrent Neural
Networks", CVPR 2017.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

State = tuple[Tensor, Tensor]
"""A cell's hidden and cell state, each ``[N, channels, rows, columns]``."""


class ConvLstmCell(nn.Module):
    """One ConvLSTM cell without biases and peepholes.

    ::

        x [N, in_channels, rows * stride, columns * stride]      h, c [N, channels, rows, columns]

        i, f, g, o = input_conv(x) + hidden_conv(h)              four gates of `channels` each
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    The input convolution is 3x3 with the given stride, the hidden convolution 1x1. So pixels interact only
    through the input convolution.
    """

    input_conv: nn.Module

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.input_conv = nn.Conv2d(in_channels, 4 * channels, 3, stride=stride, padding=1, bias=False)
        self.hidden_conv = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.gates = Gates()

    def forward(self, x: Tensor, state: State | None) -> State:
        """Return the state after input `x`; a state of None is zero."""
        return self.next_state(self.input_conv(x), state)

    def next_state(self, input_gates: Tensor, state: State | None) -> State:
        """Return the next state from the input convolution's output ``[N, 4 * channels, rows, columns]``.

        A state of None is zero; it needs no hidden convolution.
        """
        if state is None:
            return self.gates(input_gates, None)
        hidden, cell = state
        return self.gates(input_gates + self.hidden_conv(hidden), cell)


class ConvLstmCells(nn.ModuleList):
    """A sequence of cells: each reads the output of the one before.

    Args:
        channels: the input channels of the first cell, then the channels of each cell.
        stride: stride of the input convolutions.
        upsampled: whether outputs are doubled in height and width (nearest neighbour).
    """

    def __init__(self, channels: Sequence[int], stride: int, *, upsampled: bool = False) -> None:
        super().__init__(ConvLstmCell(before, after, stride) for before, after in pairwise(channels))
        self.upsampled = upsampled

    def cell_output(self, state: State) -> Tensor:
        """Return a cell's output: its hidden state, upsampled if the cells are."""
        return interpolate(state[0], scale_factor=2.0, mode="nearest") if self.upsampled else state[0]

    def step(self, x: Tensor, states: list[State | None]) -> tuple[Tensor, list[State | None]]:
        """Run one step of all cells; return the output of the last one and the new state of each."""
        return self.step_from_gates(self.first_gates(x), states)

    def first_gates(self, x: Tensor) -> Tensor:
        """Return the output of the first cell's input convolution, which does not depend on a state."""
        first, *_ = self
        return first.input_conv(x)

    def step_from_gates(
        self, first_gates: Tensor, states: list[State | None]
    ) -> tuple[Tensor, list[State | None]]:
        """Run one step of all cells from the output of `first_gates`; otherwise like `step`."""
        first, *others = self
        new_state = first.next_state(first_gates, states[0])
        new_states: list[State | None] = [new_state]
        for cell, state in zip(others, states[1:], strict=True):
            new_state = cell(self.cell_output(new_state), state)
            new_states.append(new_state)
        return self.cell_output(new_state), new_states

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[ConvLstmCell]:
            """Iterate over the cells."""


def split_gates(gates: Tensor) -> tuple[Tensor, ...]:
    """Return the four gates ``[N, channels, …]`` of ``[N, 4 * channels, …]``."""
    return gates.chunk(4, dim=1)  # one convolution for all gates is faster than four


class Gates(nn.Module):
    """Computes the new state from gates ``[N, 4 * channels, …]`` and cell state ``[N, channels, …]``.

    Cell state and hidden state are separate modules so that exported graphs name their tensors after
    them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cell_state = CellState()
        self.hidden_state = HiddenState()

    def forward(self, gates: Tensor, cell: Tensor | None) -> State:
        """Return the new state; a cell state of None is zero, so its term is left out."""
        return self.new_state(split_gates(gates), cell)

    def new_state(self, gates: tuple[Tensor, ...], cell: Tensor | None) -> State:
        """Return the new state from the four gates ``[N, channels, …]``: input, forget, candidate, output."""
        i, f, g, o = gates
        cell = self.cell_state(i, f, g, cell)
        return self.hidden_state(o, cell), cell


class CellState(nn.Module):
    """Computes ``sigmoid(f) * c + sigmoid(i) * tanh(g)``."""

    def forward(self, i: Tensor, f: Tensor, g: Tensor, cell: Tensor | None) -> Tensor:
        """Return the new cell state.

        Args:
            i: input gate before its sigmoid, ``[N, channels, rows, columns]``, as all arguments.
            f: forget gate before its sigmoid.
            g: candidate values before their tanh.
            cell: the previous cell state; None for zero.
        """
        written = torch.sigmoid(i) * torch.tanh(g)
        return written if cell is None else torch.sigmoid(f) * cell + written


class HiddenState(nn.Module):
    """Computes ``sigmoid(o) * tanh(c)``."""

    def forward(self, o: Tensor, cell: Tensor) -> Tensor:
        """Return the new hidden state."""
        return torch.sigmoid(o) * torch.tanh(cell)
