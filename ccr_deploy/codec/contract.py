"""The code contract: all that an encoder and a classifier must agree on to exchange codes.

A code is the encoder's binary output, ``[N, C, H/16, W/16]`` in {-1, +1}. Packed, it is
``uint8 [N, C * (H/16) * (W/16) / 8]``: one bit per element, 1 exactly where the pre-binarization
activation was >= 0, most significant bit first, in C order over [channel, row, column].
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from ccr_deploy.core.records import Record, canonical_json

DOWNSAMPLING = 16
"""Ratio of the image's height and width to those of its code: the encoder has four layers of stride 2."""

MAX_SIDE = 4096
"""Largest image height or width, in pixels; the header of a payload could hold 65,535."""

FLOAT32_TINY = float(np.finfo(np.float32).tiny)
FLOAT32_MAX = float(np.finfo(np.float32).max)

CANONICAL_FORM = 1
"""Version of the canonical form that the contract id is a hash of; see `CodeContract.canonical_form`."""

ResizeFilter = Literal["bilinear", "bicubic", "lanczos", "box"]


class Preprocessing(Record, frozen=True):
    """How an image file is converted to the encoder's input image.

    EXIF rotation is applied first. Grey, palette, alpha and CMYK images are converted to RGB. Then the image
    is resized by Pillow with antialiasing, keeping its aspect ratio, to the smallest size that covers
    `resize_to_cover` (rows, columns in pixels), and the centre is cropped to the image size. `mean` and `std`
    normalise pixel values scaled to 0..1, per channel; this step is part of the encoder's graph.
    """

    resize_to_cover: tuple[int, int]
    resize_filter: ResizeFilter = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise ValueError(f"preprocessing std is {self.std}: every value must be above 0")
        for mean, std in zip(self.mean, self.std, strict=True):
            # The graph computes in float32. Written so that NaN fails, since comparisons with NaN are false.
            if not (std >= FLOAT32_TINY and (abs(mean) + 1) / std <= FLOAT32_MAX and std <= FLOAT32_MAX):
                raise ValueError(f"preprocessing mean {mean} and std {std} are out of range in float32")

    def check_covers(self, height: int, width: int) -> None:
        """Raise ValueError if `resize_to_cover` is smaller than the image size, in pixels."""
        rows, columns = self.resize_to_cover
        if rows < height or columns < width:
            raise ValueError(
                f"image files are resized to {rows}x{columns}, less than the image size {height}x{width}"
            )


class CodeContract(Record, frozen=True, dict=True):  # dict: for the cached property
    """The properties of a code. A classifier refuses a payload whose `contract_id` differs from its own.

    `encoder_digest` is the SHA-256 of the encoder's weights: codes of differently trained encoders are
    incompatible.
    """

    image_height: int
    image_width: int
    preprocessing: Preprocessing
    iterations: int
    code_channels: int
    encoder_digest: str
    bit_order: Literal["msb-first; channel, row, column"] = "msb-first; channel, row, column"
    bit_rule: Literal["1 where the pre-binarization activation is >= 0"] = (
        "1 where the pre-binarization activation is >= 0"
    )

    def __post_init__(self) -> None:
        for what, pixels in (("height", self.image_height), ("width", self.image_width)):
            if pixels % DOWNSAMPLING or not DOWNSAMPLING <= pixels <= MAX_SIDE:
                raise ValueError(
                    f"image {what} {pixels} is not a multiple of {DOWNSAMPLING} up to {MAX_SIDE}"
                )
        # A multiple of 8, so that packed codes are whole bytes for every image size.
        if self.code_channels % 8 or not 8 <= self.code_channels <= MAX_SIDE:
            raise ValueError(f"{self.code_channels} code channels are not a multiple of 8 up to {MAX_SIDE}")
        if self.iterations < 1:
            raise ValueError(f"{self.iterations} iterations: at least 1 is needed")

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """The channels, rows and columns of one code."""
        return self.code_channels, self.image_height // DOWNSAMPLING, self.image_width // DOWNSAMPLING

    @property
    def code_bytes(self) -> int:
        """The size of one packed code in bytes."""
        channels, rows, columns = self.code_shape
        return channels * rows * columns // 8

    @cached_property
    def contract_id(self) -> str:
        """The first 8 bytes of the SHA-256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical_form).hexdigest()[:16]

    @property
    def canonical_form(self) -> bytes:
        """The contract as canonical JSON, documented field by field in ``docs/payload.md``.

        Stored payloads contain a hash of this form, so it must not change. A field that a later release adds
        must be omitted here if it has its default, and the default must mean what contracts without it meant.
        """
        preprocessing = self.preprocessing
        form = {
            "canonical_form": CANONICAL_FORM,
            "image_height": self.image_height,
            "image_width": self.image_width,
            "preprocessing": {
                "resize_to_cover": list(preprocessing.resize_to_cover),
                "resize_filter": preprocessing.resize_filter,
                # As floats: 1 and 1.0 in a TOML or JSON file must give the same id.
                "mean": [float(value) for value in preprocessing.mean],
                "std": [float(value) for value in preprocessing.std],
            },
            "iterations": self.iterations,
            "code_channels": self.code_channels,
            "encoder_digest": self.encoder_digest,
            "bit_order": self.bit_order,
            "bit_rule": self.bit_rule,
        }
        return canonical_json(form)


def pack_code(code: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Pack codes ``float [N, C, h, w]`` to ``uint8 [N, C*h*w/8]``; a bit is 1 if the element is >= 0."""
    return np.packbits(code.reshape(len(code), -1) >= 0, axis=1)


def unpack_code(packed: npt.NDArray[np.uint8], shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Unpack ``uint8 [N, C*h*w/8]`` to codes ``float32 [N, C, h, w]`` in {-1, +1}; `shape` is (C, h, w)."""
    bits = np.unpackbits(packed, axis=1).astype(np.float32)
    return (2 * bits - 1).reshape(len(packed), *shape)
