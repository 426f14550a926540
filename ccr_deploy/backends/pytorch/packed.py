"""Encoder and classifier as a user would optimize them by hand for a GPU, in PyTorch alone.

Images are uint8 and codes are packed on the device itself, as in engines. Work that does not depend on the
iteration is done once, batch norms are folded into their convolutions, and weights and activations are in
channels_last, in FP16 on a GPU. Constants are buffers, because a CUDA graph cannot capture their creation.
The modules run on every device in every floating-point type: in FP32 their codes are the reference's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from ccr_deploy.errors import EngineError
from ccr_deploy.models.encoder import RecurrentEncoder
from ccr_deploy.models.resnet import TruncatedClassifier

if TYPE_CHECKING:
    from ccr_deploy.backends.pytorch.options import GraphSchedule
    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import ModelConfig
    from ccr_deploy.models.conv_lstm import State

_Network = TypeVar("_Network", bound=nn.Module)


class PackedEncoder(nn.Module):
    """Encode images ``uint8 [N, H, W, 3]`` to packed codes ``uint8 [N, bytes]``."""

    offset: Tensor
    scale: Tensor
    shifts: Tensor

    def __init__(
        self,
        encoder: RecurrentEncoder,
        iterations: int,
        preprocessing: Preprocessing,
        *,
        dtype: torch.dtype,
        schedule: GraphSchedule,
    ) -> None:
        """Convert an encoder, whose weights are changed.

        Args:
            encoder: the recurrent encoder.
            iterations: the number of iterations T.
            preprocessing: the normalisation of the images.
            dtype: the type of weights and activations.
            schedule: the order of the iterations.
        """
        super().__init__()
        self.encoder = in_channels_last(encoder, dtype)
        self.iterations = iterations
        self.dtype = dtype
        self.schedule = schedule
        offset = torch.tensor([255 * mean for mean in preprocessing.mean])
        scale = torch.tensor([1 / (255 * std) for std in preprocessing.std])
        self.register_buffer("offset", offset.view(3, 1, 1))
        self.register_buffer("scale", scale.view(3, 1, 1))
        self.register_buffer("shifts", bit_shifts())

    def forward(self, image: Tensor) -> Tensor:
        """Return the packed codes of images."""
        # The permuted view of an NHWC array is in channels_last already.
        pixels = (image.permute(0, 3, 1, 2) - self.offset) * self.scale
        activations = self.encoder.binarizer.conv(self._features(pixels.to(self.dtype)))
        bits = (activations >= 0).to(torch.uint8).contiguous().view(len(image), -1, 8)
        return (bits << self.shifts).sum(dim=2, dtype=torch.uint8)

    def _features(self, pixels: Tensor) -> Tensor:
        """Return the last cell's hidden state."""
        if self.schedule == "layer-major":
            return self._layer_major(pixels)
        return self.encoder.features(pixels, self.iterations)

    def _layer_major(self, pixels: Tensor) -> Tensor:
        """Return the last cell's hidden state; each input convolution runs once, on all iterations."""
        gates = [self.encoder.cells.first_gates(self.encoder.stem(pixels))] * self.iterations
        hidden: list[Tensor] = []
        for index, cell in enumerate(self.encoder.cells):
            if index:
                gates = list(cell.input_conv(torch.cat(hidden)).chunk(self.iterations))
            state: State | None = None
            hidden = []
            for own in gates:
                state = cell.next_state(own, state)
                hidden.append(state[0])
        return hidden[-1]


class PackedClassifier(nn.Module):
    """Classify packed codes ``uint8 [N, bytes]``; the logits are ``float32 [N, classes]``."""

    shifts: Tensor

    def __init__(
        self, classifier: TruncatedClassifier, code_shape: tuple[int, int, int], *, dtype: torch.dtype
    ) -> None:
        """Convert a classifier, whose weights are changed.

        Args:
            classifier: the classifier.
            code_shape: channels, rows and columns of a code.
            dtype: the type of weights and activations.
        """
        super().__init__()
        fold_batch_norms(classifier)
        self.classifier = in_channels_last(classifier, dtype)
        self.code_shape = code_shape
        self.dtype = dtype
        self.register_buffer("shifts", bit_shifts())

    def forward(self, packed: Tensor) -> Tensor:
        """Return the logits of packed codes."""
        bits = (packed.unsqueeze(2) >> self.shifts) & 1
        code = (2 * bits.to(self.dtype) - 1).view(len(packed), *self.code_shape)
        return self.classifier(code.contiguous(memory_format=torch.channels_last)).to(torch.float32)


def packed_network(
    network: nn.Module,
    model: ModelConfig,
    preprocessing: Preprocessing,
    *,
    dtype: torch.dtype,
    schedule: GraphSchedule,
) -> PackedEncoder | PackedClassifier:
    """Convert the network of an encoder or a classifier, whose weights are changed.

    Args:
        network: the network.
        model: the configuration of its model.
        preprocessing: the normalisation of its images.
        dtype: the type of weights and activations.
        schedule: the order of an encoder's iterations.

    Raises:
        EngineError: if the network is a baseline.
    """
    if isinstance(network, RecurrentEncoder):
        return PackedEncoder(network, model.iterations, preprocessing, dtype=dtype, schedule=schedule)
    if isinstance(network, TruncatedClassifier):
        return PackedClassifier(network, model.code_shape, dtype=dtype)
    raise EngineError("fp16_cuda_graph supports encoder and classifier only: omit it for the baseline")


def bit_shifts() -> Tensor:
    """Return the positions of a byte's bits, most significant bit first."""
    return torch.arange(7, -1, -1, dtype=torch.uint8)


def in_channels_last(network: _Network, dtype: torch.dtype) -> _Network:
    """Convert a network's weights to a type and to channels_last, and return the network."""
    return network.to(dtype).to(memory_format=torch.channels_last)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm that is registered right after a convolution into that convolution."""
    for parent in list(network.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
