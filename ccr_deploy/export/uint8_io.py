"""uint8 I/O: the inputs and outputs of a graph are uint8 images and packed codes.

The output of an engine is therefore the content of a payload, 4 times fewer bytes are copied to a GPU, and 32
times fewer are copied back. Bits are packed in floating-point arithmetic, which every backend has and which
is exact for integers below 2^24. They are unpacked by a lookup table. TensorRT supports uint8 only for graph
inputs and outputs, and only next to a Cast, so that all other operators come after a Cast.

`ccr_deploy.models.family` lists the names of these modules as ``UINT8_IO``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from ccr_deploy.models.chain import normalise

if TYPE_CHECKING:
    from ccr_deploy.codec.contract import Preprocessing

BIT_VALUES = (128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
"""The values of the bits of a byte, most significant bit first."""


SIGNS_OF_BYTES = tuple(
    tuple(1.0 if byte & int(value) else -1.0 for value in BIT_VALUES) for byte in range(256)
)
"""The part of a code in {-1, +1} that each byte holds."""


class Normalise(nn.Module):
    """Convert images ``uint8 [N, H, W, 3]`` to the encoder's input ``float32 [N, 3, H, W]``."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, image: Tensor) -> Tensor:
        """Normalise images."""
        return normalise(image, self.preprocessing)


class PackBits(nn.Module):
    """Convert pre-binarization activations ``[N, C, h, w]`` to packed codes ``uint8 [N, C*h*w/8]``.

    A bit is 1 if its value is >= 0. The binarizer's tanh is omitted, because it does not change signs.
    """

    def forward(self, value: Tensor) -> Tensor:
        """Pack the signs of activations."""
        bits = (value >= 0).to(torch.float32).flatten(1).unflatten(1, (-1, 8))
        return (bits * torch.tensor(BIT_VALUES)).sum(dim=2).to(torch.uint8)


class UnpackBits(nn.Module):
    """Convert packed codes ``uint8 [N, C*h*w/8]`` to codes ``float32 [N, C, h, w]`` in {-1, +1}."""

    def __init__(self, code_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.code_shape = code_shape

    def forward(self, packed: Tensor) -> Tensor:
        """Unpack codes."""
        # A lookup, because TensorRT does not support ONNX's BitShift, and compiles the parity of
        # floor(byte / 2^k) to two kernels for batches of several images. By way of floating point, because
        # not every version of TensorRT is documented to cast uint8 to an integer.
        index = packed.to(torch.float32).to(torch.int32)
        signs = embedding(index, torch.tensor(SIGNS_OF_BYTES))
        return signs.flatten(1).unflatten(1, self.code_shape)


class EncoderGraph(nn.Sequential):
    """The graph of an unrolled encoder: ``image uint8 [N, H, W, 3]`` to ``code uint8 [N, bytes]``."""

    def __init__(self, unrolled: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__(OrderedDict(normalise=Normalise(preprocessing), network=unrolled, pack=PackBits()))


class ClassifierGraph(nn.Sequential):
    """The graph of a classifier: ``code uint8 [N, bytes]`` to ``logits float32 [N, classes]``."""

    def __init__(self, classifier: nn.Module, code_shape: tuple[int, int, int]) -> None:
        super().__init__(OrderedDict(unpack=UnpackBits(code_shape), network=classifier))


class BaselineGraph(nn.Sequential):
    """The graph of an unrolled baseline: ``image uint8 [N, H, W, 3]`` to ``logits float32 [N, classes]``."""

    def __init__(self, unrolled: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__(OrderedDict(normalise=Normalise(preprocessing), network=unrolled))
