"""The binarizer: from the last cell's hidden state to a code of -1 and +1.

Toderici et al., "Variable Rate Image Compression with Recurrent Neural Networks", ICLR 2016, section 3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


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

    Attributes:
        draw: returns random numbers, uniform in 0..1, in the shape, the type and on the device of a tensor.
            Training replaces it to draw the same numbers on any number of processes. State dicts do not
            contain it.
    """

    draw: Callable[[Tensor], Tensor]

    def __init__(self, in_channels: int, code_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, code_channels, 1, bias=False)
        self.draw = torch.rand_like

    def forward(self, features: Tensor) -> Tensor:
        """Return the code of the last cell's hidden state."""
        activations = self.conv(features)
        if self.training:
            return stochastic_sign(torch.tanh(_at_least_float32(activations)), self.draw)
        return sign(activations)  # tanh keeps the sign, so it is left out


def sign(value: Tensor) -> Tensor:
    """Return +1 for each element >= 0 (so for zero), otherwise -1."""
    # Not torch.sign, which is 0 for 0: the contract defines that zero is a 1.
    return torch.where(value >= 0, 1.0, -1.0)


def stochastic_sign(value: Tensor, draw: Callable[[Tensor], Tensor] = torch.rand_like) -> Tensor:
    """Draw +1 with probability ``(1 + value) / 2``, otherwise -1; the gradient is that of `value`.

    The function `draw` returns random numbers, uniform in 0..1, for a tensor of probabilities.
    """
    probability = (1 + value.detach()) / 2
    drawn = torch.where(draw(probability) < probability, 1.0, -1.0)
    # The difference is exactly 0, so the result is exactly +1 or -1; NaN stays NaN, which training detects.
    return drawn + (value - value.detach())


def _at_least_float32(activations: Tensor) -> Tensor:
    """Convert 16-bit activations of mixed precision to float32.

    In bfloat16, tanh is 1 from 3.1 on, so that its gradient is lost, and uniform random numbers have only 256
    values, so that a bit whose probability is 1e-6 would be drawn with 1/256.
    """
    return activations.to(torch.promote_types(activations.dtype, torch.float32))
