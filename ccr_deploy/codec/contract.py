"""The code contract: everything two parties must share for one to understand the other's codes.

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
"""How many image pixels, in each direction, one code position stands for."""

MAX_SIDE = 4096
"""The most rows or columns of an image; a payload's header could hold 65,535."""

FLOAT32_TINY = float(np.finfo(np.float32).tiny)
FLOAT32_MAX = float(np.finfo(np.float32).max)

CANONICAL_FORM = 1
"""The version of the form that the contract id is the hash of; see `CodeContract.canonical_form`."""

ResizeFilter = Literal["bilinear", "bicubic", "lanczos", "box"]


class Preprocessing(Record, frozen=True):
    """How an image file becomes the encoder's input image.

    EXIF rotation is applied first; grey, palette, alpha and CMYK images are converted to RGB. Then
    the image is resized, keeping its aspect, to the smallest size that covers `resize_to_cover`
    (rows, columns; Pillow, with antialiasing), and the centre is cropped to the image size. `mean`
    and `std` normalise pixels scaled to 0..1; that step is part of the encoder's graph.
    """

    resize_to_cover: tuple[int, int]
    resize_filter: ResizeFilter = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise ValueError(f"preprocessing std is {self.std}: every value must be above 0")
        for mean, std in zip(self.mean, self.std, strict=True):
            # The graph computes in float32. A comparison with NaN is false.
            if not (std >= FLOAT32_TINY and (abs(mean) + 1) / std <= FLOAT32_MAX and std <= FLOAT32_MAX):
                raise ValueError(f"preprocessing mean {mean} and std {std} are no normalisation in float32")

    def check_covers(self, height: int, width: int) -> None:
        """Raise ValueError if an image file would be resized to less than the encoder's input."""
        rows, columns = self.resize_to_cover
        if rows < height or columns < width:
            raise ValueError(
                f"image files are resized to {rows}x{columns}, less than the encoder's {height}x{width}"
            )


class CodeContract(Record, frozen=True, dict=True):
    """What a code means. Two parties whose `contract_id` differs do not understand each other.

    `encoder_digest` is the SHA-256 of the encoder's weights: the codes of two trainings are two
    languages.
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
        if self.code_channels % 8 or not 8 <= self.code_channels <= MAX_SIDE:
            raise ValueError(f"{self.code_channels} code channels are not a multiple of 8 up to {MAX_SIDE}")
        if self.iterations < 1:
            raise ValueError(f"{self.iterations} iterations: at least 1 is needed")

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of one code."""
        return self.code_channels, self.image_height // DOWNSAMPLING, self.image_width // DOWNSAMPLING

    @property
    def code_bytes(self) -> int:
        """Bytes of one packed code."""
        channels, rows, columns = self.code_shape
        return channels * rows * columns // 8

    @cached_property
    def contract_id(self) -> str:
        """The contract's short form: the first 8 bytes, in hexadecimal, of its canonical form's SHA-256."""
        return hashlib.sha256(self.canonical_form).hexdigest()[:16]

    @property
    def canonical_form(self) -> bytes:
        """The contract as JSON, field by field, as ``docs/payload.md`` documents it.

        Payloads in the field carry its hash. So a field that a later release adds to a contract is left out
        here where it has its default, which means what contracts without it meant.
        """
        preprocessing = self.preprocessing
        form = {
            "canonical_form": CANONICAL_FORM,
            "image_height": self.image_height,
            "image_width": self.image_width,
            "preprocessing": {
                "resize_to_cover": list(preprocessing.resize_to_cover),
                "resize_filter": preprocessing.resize_filter,
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
    """Packs codes ``[N, C, h, w]``, of which every element >= 0 is a 1, into ``uint8 [N, C*h*w/8]``."""
    return np.packbits(code.reshape(len(code), -1) >= 0, axis=1)


def unpack_code(packed: npt.NDArray[np.uint8], shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Unpacks ``uint8 [N, C*h*w/8]`` into codes ``float32 [N, C, h, w]`` in {-1, +1}."""
    bits = np.unpackbits(packed, axis=1).astype(np.float32)
    return (2 * bits - 1).reshape(len(packed), *shape)
