"""The convolutional LSTM cell that encoder and decoder are made of."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from collections.abc import Sequence

State = tuple[Tensor, Tensor]
"""A cell's hidden and cell state, each ``[N, channels, rows, columns]``."""


class ConvLstmCell(nn.Module):
    """Shi et al., "Convolutional LSTM Network", NeurIPS 2015, without biases and peepholes.

    ::

        input_conv(x) + hidden_conv(h)  ->  i, f, g, o      four gates, `channels` each
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    The input convolution is 3x3 with the given stride, the hidden convolution 1x1 (as in Toderici et
    al., CVPR 2017).
    """

    input_conv: nn.Module

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.input_conv = nn.Conv2d(in_channels, 4 * channels, 3, stride=stride, padding=1, bias=False)
        self.hidden_conv = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.gates = Gates()

    def forward(self, x: Tensor, state: State | None) -> State:
        """One step on ``x [N, in_channels, rows, columns]``; no state means a zero state."""
        if state is None:
            return self.gates(self.input_conv(x), None)
        hidden, cell = state
        return self.gates(self.input_conv(x) + self.hidden_conv(hidden), cell)


class ConvLstmCells(nn.ModuleList):
    """A row of cells, each of which reads the hidden state of the one before, upsampled if that is asked for.

    Args:
        channels: the first cell's input channels, then each one's own.
        stride: of their input convolutions.
        upsampled: whether hidden states are doubled in height and width, by the nearest neighbour.
    """

    def __init__(self, channels: Sequence[int], stride: int, *, upsampled: bool = False) -> None:
        super().__init__(ConvLstmCell(before, after, stride) for before, after in pairwise(channels))
        self.upsampled = upsampled

    def cell_output(self, state: State) -> Tensor:
        """What the next cell reads of a cell's new state."""
        return interpolate(state[0], scale_factor=2.0, mode="nearest") if self.upsampled else state[0]

    def step(self, x: Tensor, states: list[State | None]) -> tuple[Tensor, list[State | None]]:
        """One step of all cells: what the last one passes on, and every cell's new state."""
        new_states: list[State | None] = []
        for cell, state in zip(self, states, strict=True):
            new_state = cell(x, state)
            new_states.append(new_state)
            x = self.cell_output(new_state)
        return x, new_states


class Gates(nn.Module):
    """What the four gates ``[N, 4 * channels, …]`` make of the cell state ``[N, channels, …]``.

    Both states are modules of their own so that an exported graph names its tensors after them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cell_state = CellState()
        self.hidden_state = HiddenState()

    def forward(self, gates: Tensor, cell: Tensor | None) -> State:
        """The new state; no cell state means a zero state, whose terms vanish."""
        i, f, g, o = gates.chunk(4, dim=1)
        cell = self.cell_state(i, f, g, cell)
        return self.hidden_state(o, cell), cell


class CellState(nn.Module):
    """``sigmoid(f) * c + sigmoid(i) * tanh(g)``."""

    def forward(self, i: Tensor, f: Tensor, g: Tensor, cell: Tensor | None) -> Tensor:
        """The new cell state."""
        written = torch.sigmoid(i) * torch.tanh(g)
        return written if cell is None else torch.sigmoid(f) * cell + written


class HiddenState(nn.Module):
    """``sigmoid(o) * tanh(c)``."""

    def forward(self, o: Tensor, cell: Tensor) -> Tensor:
        """The new hidden state."""
        return torch.sigmoid(o) * torch.tanh(cell)
