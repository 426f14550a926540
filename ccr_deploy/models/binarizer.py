"""The binarizer: from the last cell's hidden state to a code of -1 and +1.

Toderici et al., "Variable Rate Image Compression with Recurrent Neural Networks", ICLR 2016, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Binarizer(nn.Module):
    """Reduces the channels and takes the sign.

    ::

        features [N, in_channels, h, w]
          conv        conv 1x1                     [N, code_channels, h, w]   pre-binarization activations
          tanh                                     "                          in -1..1
          sign                                     "                          the code, in {-1, +1}

    In evaluation an element is +1 exactly if its pre-binarization activation is >= 0. In training it is drawn
    at random so that its expectation is the tanh, and the gradient is that of the tanh (straight-through
    estimator).
    """

    def __init__(self, in_channels: int, code_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, code_channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the code of the last cell's hidden state."""
        # tanh keeps the sign, so exported graphs leave it out; in training it gives the probability.
        value = torch.tanh(self.conv(features))
        if self.training:
            return stochastic_sign(value)
        return sign(value)


def sign(value: Tensor) -> Tensor:
    """Return +1 for each element >= 0 (so for zero), otherwise -1."""
    # Not torch.sign, which is 0 for 0: the contract defines that zero is a 1.
    return torch.where(value >= 0, 1.0, -1.0)


def stochastic_sign(value: Tensor) -> Tensor:
    """Draw +1 with probability ``(1 + value) / 2``, otherwise -1; the gradient is that of `value`."""
    drawn = torch.where(torch.rand_like(value) < (1 + value) / 2, 1.0, -1.0)
    return value + (drawn - value).detach()
