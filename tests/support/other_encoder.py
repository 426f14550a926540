"""A recurrent encoder as another implementation writes it: other names, its own cell, its own loop."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class OtherCell(nn.Module):
    """A ConvLSTM cell with its gates in the order input, forget, cell, output."""

    def __init__(self, inputs: int, channels: int, *, hidden_kernel: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv_ih = nn.Conv2d(inputs, 4 * channels, 3, stride=2, padding=1, bias=bias)
        self.conv_hh = nn.Conv2d(channels, 4 * channels, hidden_kernel, padding=hidden_kernel // 2, bias=bias)

    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = hidden
        gate_in, gate_forget, gate_cell, gate_out = (self.conv_ih(x) + self.conv_hh(h)).chunk(4, 1)
        c = gate_forget.sigmoid() * c + gate_in.sigmoid() * gate_cell.tanh()
        return gate_out.sigmoid() * c.tanh(), c


class OtherEncoder(nn.Module):
    """Stem and cells; `rnn1` is the first cell."""

    def __init__(self, widths: Sequence[int], *, hidden_kernel: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=bias)
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            cell = OtherCell(before, after, hidden_kernel=hidden_kernel, bias=bias)
            self.add_module(f"rnn{number}", cell)
        self.widths = tuple(widths[1:])


class OtherBinarizer(nn.Module):
    """The 1x1 convolution before the sign."""

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, bits, 1, bias=False)


def other_encoder(
    widths: Sequence[int] = (4, 4, 6, 8), bits: int = 16, seed: int = 0
) -> tuple[OtherEncoder, OtherBinarizer]:
    """Return an encoder and a binarizer with random weights, of which few give values close to zero.

    Args:
        widths: channels of the stem, then of each cell.
        bits: channels of the code.
        seed: seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = OtherEncoder(widths), OtherBinarizer(widths[-1], bits)
        for parameter in chain.from_iterable(network.parameters() for network in networks):
            parameter.data *= 2
        return networks


@torch.no_grad()
def other_loop(encoder: OtherEncoder, binarizer: OtherBinarizer, image: Tensor, iterations: int) -> Tensor:
    """Run the encoder on the same image in every iteration, as a chain without a decoder does.

    Args:
        encoder: the encoder.
        binarizer: its binarizer.
        image: ``uint8 [N, H, W, 3]``.
        iterations: the number of iterations T.

    Returns:
        The values before the sign, ``float32 [N, bits, H/16, W/16]``.
    """
    x = image.permute(0, 3, 1, 2).float() / 255 - 0.5
    rows, columns = image.shape[1] // 4, image.shape[2] // 4
    hidden = []
    for width in encoder.widths:
        hidden.append(tuple(torch.zeros(len(image), width, rows, columns) for _ in range(2)))
        rows, columns = rows // 2, columns // 2
    for _ in range(iterations):
        features = encoder.conv(x)
        for number in range(len(encoder.widths)):
            hidden[number] = encoder.get_submodule(f"rnn{number + 1}")(features, hidden[number])
            features = hidden[number][0]
        values = binarizer.conv(features)
    return values
