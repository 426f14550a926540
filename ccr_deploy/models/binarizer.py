"""From the last cell's state to bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Binarizer(nn.Module):
    """Conv 1x1, tanh, sign: ``[N, in_channels, h, w]`` to codes ``[N, code_channels, h, w]`` in {-1, +1}.

    In training the sign is drawn at random so that its expectation is the tanh, and the gradient
    passes straight through (Toderici et al., "Variable Rate Image Compression with Recurrent Neural
    Networks", ICLR 2016, section 3.1). In evaluation a bit is +1 exactly where the
    pre-binarization activation is >= 0.
    """

    def __init__(self, in_channels: int, code_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, code_channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """The code of the last cell's hidden state."""
        value = torch.tanh(self.conv(features))
        if self.training:
            return stochastic_sign(value)
        return sign(value)


def sign(value: Tensor) -> Tensor:
    """+1 where ``value >= 0`` (so zero is a 1), else -1."""
    return torch.where(value >= 0, 1.0, -1.0)


def stochastic_sign(value: Tensor) -> Tensor:
    """+1 with probability ``(1 + value) / 2``, else -1; its gradient is that of `value`."""
    drawn = torch.where(torch.rand_like(value) < (1 + value) / 2, 1.0, -1.0)
    return value + (drawn - value).detach()
