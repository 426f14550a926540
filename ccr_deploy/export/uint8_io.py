"""uint8 I/O: images and codes enter and leave a graph as uint8.

An engine's output is thus what goes on the wire, and 4 times fewer bytes go up to a GPU and 32 times
fewer come down. Bits are packed and unpacked in float arithmetic, which is exact for integers below
2^24 and which every backend has; TensorRT takes uint8 only as a graph input or output, next to a Cast.

The attributes that hold the modules are what `ccr_deploy.models.family` calls ``UINT8_IO``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ccr_deploy.models.chain import normalise

if TYPE_CHECKING:
    from ccr_deploy.codec.contract import Preprocessing

BIT_VALUES = (128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
"""Most significant bit first."""


class Normalise(nn.Module):
    """Images ``uint8 [N, H, W, 3]`` to the encoder's input ``float32 [N, 3, H, W]``."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, image: Tensor) -> Tensor:
        """The normalised image."""
        return normalise(image, self.preprocessing)


class PackBits(nn.Module):
    """Pre-binarization activations ``[N, C, h, w]`` to packed codes ``uint8 [N, C*h*w/8]``.

    A bit is 1 exactly where the value is >= 0. The binarizer's tanh is left out: it keeps every sign.
    """

    def forward(self, value: Tensor) -> Tensor:
        """The packed code."""
        bits = (value >= 0).to(torch.float32).flatten(1).unflatten(1, (-1, 8))
        return (bits * torch.tensor(BIT_VALUES)).sum(dim=2).to(torch.uint8)


class UnpackBits(nn.Module):
    """Packed codes ``uint8 [N, C*h*w/8]`` to codes ``float32 [N, C, h, w]`` in {-1, +1}."""

    def __init__(self, code_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.code_shape = code_shape

    def forward(self, packed: Tensor) -> Tensor:
        """The code."""
        shifted = torch.floor(packed.to(torch.float32).unsqueeze(2) / torch.tensor(BIT_VALUES))
        bits = shifted - 2 * torch.floor(shifted / 2)
        return (2 * bits - 1).flatten(1).unflatten(1, self.code_shape)


class EncoderGraph(nn.Sequential):
    """``image uint8 [N, H, W, 3]`` to ``code uint8 [N, bytes]``, through an unrolled encoder."""

    def __init__(self, unrolled: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__(OrderedDict(normalise=Normalise(preprocessing), network=unrolled, pack=PackBits()))


class ClassifierGraph(nn.Sequential):
    """``code uint8 [N, bytes]`` to ``logits float32 [N, classes]``."""

    def __init__(self, classifier: nn.Module, code_shape: tuple[int, int, int]) -> None:
        super().__init__(OrderedDict(unpack=UnpackBits(code_shape), network=classifier))


class BaselineGraph(nn.Sequential):
    """``image uint8 [N, H, W, 3]`` to ``logits float32 [N, classes]``, through an unrolled baseline."""

    def __init__(self, unrolled: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__(OrderedDict(normalise=Normalise(preprocessing), network=unrolled))
