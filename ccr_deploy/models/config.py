"""Configurations of models, checked when they are read. Does not import torch.

The defaults are the paper's models. It prints no channel widths; these are a reconstruction that gives
exactly the parameter counts of its Table 1.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ccr_deploy.codec.contract import DOWNSAMPLING, MAX_SIDE
from ccr_deploy.core.records import Record
from ccr_deploy.models.iterations import MAX_ITERATIONS

Cut = Literal["layer1", "layer2", "layer3"]
# The upper limits are far above any model; larger numbers overflow the sizes of PyTorch's tensors.
Channels = Annotated[int, Meta(ge=1, le=1 << 16)]
Classes = Annotated[int, Meta(ge=2, le=1 << 20)]

CUT_STAGE: dict[Cut, int] = {"layer1": 1, "layer2": 2, "layer3": 3}
"""The number of the last residual stage that each cut removes."""


class EncoderConfig(Record, frozen=True, kw_only=True):
    """The recurrent compressor: stem, three ConvLSTM cells, binarizer."""

    stem_channels: Channels = 64
    cell_channels: tuple[Channels, Channels, Channels] = (32, 192, 384)
    code_channels: Annotated[int, Meta(ge=8, le=4096)] = 32

    def __post_init__(self) -> None:
        if self.code_channels % 8:
            raise ValueError(
                f"code_channels is {self.code_channels}, which is not divisible by 8: "
                "a packed code must be whole bytes"
            )


class DecoderConfig(Record, frozen=True, kw_only=True):
    """The baseline's decoder: four ConvLSTM cells at 1/16, 1/8, 1/4 and 1/2 of the image size."""

    cell_channels: tuple[Channels, Channels, Channels, Channels] = (256, 192, 192, 128)


class ClassifierConfig(Record, frozen=True, kw_only=True):
    """A ResNet-18: whole if `cut` is None, otherwise without the stem and the residual stages up to `cut`."""

    cut: Cut | None
    classes: Classes = 100
    stage_channels: tuple[Channels, Channels, Channels, Channels] = (64, 128, 256, 512)


class ModelConfig(Record, frozen=True, kw_only=True):
    """One model of the family: a CCR chain, or the baseline chain if it has a decoder."""

    image_height: Annotated[int, Meta(ge=DOWNSAMPLING, le=MAX_SIDE)] = 224
    image_width: Annotated[int, Meta(ge=DOWNSAMPLING, le=MAX_SIDE)] = 224
    iterations: Annotated[int, Meta(ge=1, le=MAX_ITERATIONS)] = 8
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig | None = None
    classifier: ClassifierConfig

    def __post_init__(self) -> None:
        for side, pixels in (("height", self.image_height), ("width", self.image_width)):
            if pixels % DOWNSAMPLING:
                raise ValueError(
                    f"the image {side} is {pixels}, which is not divisible by {DOWNSAMPLING}: "
                    "the encoder halves the image size four times"
                )
        if (self.decoder is None) != (self.classifier.cut is not None):
            raise ValueError(
                "a baseline has a decoder and a whole ResNet-18, a CCR chain has a cut and no decoder"
            )

    @property
    def is_baseline(self) -> bool:
        """Whether this is the conventional chain, which restores the image before it recognises it."""
        return self.decoder is not None

    @property
    def summary(self) -> str:
        """Image size in pixels, T and cut as results name them: ``224x224, T=8, cut layer1``."""
        cut = "" if self.classifier.cut is None else f", cut {self.classifier.cut}"
        return f"{self.image_height}x{self.image_width}, T={self.iterations}{cut}"

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """The channels, rows and columns of one code."""
        return (
            self.encoder.code_channels,
            self.image_height // DOWNSAMPLING,
            self.image_width // DOWNSAMPLING,
        )

    @property
    def code_bytes(self) -> int:
        """The size of one packed code in bytes."""
        channels, rows, columns = self.code_shape
        return channels * rows * columns // 8
