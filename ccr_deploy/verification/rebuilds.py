"""Comparison of several builds of the same engines: their codes and classes for the same images.

A builder that selects kernels by timing them may build engines that round differently each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

SCHEMA_VERSION = 1
SHOWN_IMAGES = 10


@dataclass(frozen=True)
class ChainOutputs:
    """What a chain returned for N images: packed codes ``uint8 [N, bytes]``, top-1 classes ``int64 [N]``."""

    codes: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]


class Build(Record, frozen=True):
    """One build of the chain's engines: the installed one, or one of the new ones.

    `flipped_bits` and `changed_answers` count the differences from the reference, `bits_unlike_installed` and
    `answers_unlike_installed` those from the installed engines. `latency_ms_p50` is the median for one run of
    the chain.
    """

    name: str
    engine_sha256: dict[str, str]
    build_seconds: float
    flipped_bits: int
    changed_answers: int
    bits_unlike_installed: int
    answers_unlike_installed: int
    latency_ms_p50: float


class RebuildReport(Record, frozen=True):
    """The spread over several builds of the same engines; the installed build is the first.

    `bits_that_vary` and `answers_that_vary` count the bits and images for which not all builds agree;
    `images_that_vary` are the first `SHOWN_IMAGES` of these images. The latencies were measured interleaved,
    with `batch` images a run; `unreliable_reasons` lists what disturbed them.
    """

    schema_version: int
    created_by: str
    bundle: str
    target: str
    precisions: dict[str, str]
    reference: str
    images: str
    image_count: int
    bits: int
    builds: tuple[Build, ...]
    bits_that_vary: int
    answers_that_vary: int
    images_that_vary: tuple[str, ...]
    batch: int
    unreliable_reasons: tuple[str, ...]


@dataclass(frozen=True)
class Differences:
    """How a build differs from the reference and from the installed build, in numbers of bits and images."""

    flipped_bits: int
    changed_answers: int
    bits_unlike_installed: int
    answers_unlike_installed: int


@dataclass(frozen=True)
class Spread:
    """The differences of each build, and what varies among them.

    `bits_that_vary` is the number of bits; `images_that_vary` has the positions of the images.
    """

    builds: Mapping[str, Differences]
    bits_that_vary: int
    images_that_vary: Sequence[int]


def spread_of(reference: ChainOutputs, builds: Mapping[str, ChainOutputs]) -> Spread:
    """Compare the outputs of builds with the reference's, and with those of the first build.

    Args:
        reference: outputs of the checkpoint.
        builds: outputs by the name of the build; the installed build is the first.
    """
    installed = next(iter(builds.values()))
    varying_bits = np.zeros_like(installed.codes)
    varying_images = np.zeros(len(installed.classes), bool)
    differences = {}
    for name, found in builds.items():
        unlike = found.codes ^ installed.codes
        other = found.classes != installed.classes
        varying_bits |= unlike
        varying_images |= other
        differences[name] = Differences(
            flipped_bits=_ones(found.codes ^ reference.codes),
            changed_answers=int((found.classes != reference.classes).sum()),
            bits_unlike_installed=_ones(unlike),
            answers_unlike_installed=int(other.sum()),
        )
    return Spread(differences, _ones(varying_bits), np.flatnonzero(varying_images).tolist())


def _ones(packed: npt.NDArray[np.uint8]) -> int:
    return int(np.unpackbits(packed).sum())
