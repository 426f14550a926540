"""The results of single batches, and those of a whole image set collected from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.verification.measures import TOTALS, Measures
from ccr_deploy.verification.shown import ShownBatch

if TYPE_CHECKING:
    from ccr_deploy.verification.results import GoldenAnswer


@dataclass(frozen=True)
class BatchResult:
    """What a report needs of one batch; `number` is that of the batch in the image set.

    `images_sha256` is the SHA-256 of the decoded images; `golden` has the engines' answers if they are
    compared with a golden file.
    """

    number: int
    images_sha256: str
    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    groups: tuple[str, ...]
    measures: Measures
    shown: ShownBatch
    golden: tuple[GoldenAnswer, ...] = ()


class Collected:
    """The results of an image set, filled batch by batch in the order of the images.

    Args:
        images: number of images. Arrays of this size are allocated once: joining arrays would hold them
            twice.
    """

    def __init__(self, images: int) -> None:
        self.names: list[str] = []
        self.labels: list[int | None] = []
        self.groups: list[str] = []
        self.shown = ShownBatch((), ())
        self.golden: list[GoldenAnswer] = []
        self._images = images
        self._digest = hashlib.sha256()
        self._measures: Measures | None = None

    def add(self, result: BatchResult) -> None:
        """Add the next batch."""
        part = slice(len(self.names), len(self.names) + len(result.names))
        self.names += result.names
        self.labels += result.labels
        self.groups += result.groups
        self.golden += result.golden
        self.shown = self.shown.joined(result.shown)
        self._digest.update(bytes.fromhex(result.images_sha256))
        if self._measures is None:
            self._measures = empty(self._images, result.measures)
        for table in fields(Measures):
            for key, found in getattr(result.measures, table.name).items():
                whole = getattr(self._measures, table.name)[key]
                for name, values in vars(found).items():
                    if name in TOTALS:
                        getattr(whole, name)[...] += values
                    else:
                        getattr(whole, name)[part] = values

    @property
    def images_sha256(self) -> str:
        """A digest of the batches' digests: it can be computed from parts that several machines ran."""
        return self._digest.hexdigest()

    @property
    def measures(self) -> Measures:
        """The measurements of all images."""
        assert self._measures is not None
        return self._measures


def empty(images: int, like: Measures) -> Measures:
    """Return measurements with room for `images` images; counts are 0.

    Args:
        images: number of images.
        like: measurements with the same tables and keys.
    """

    def emptied(found: Any) -> Any:  # noqa: ANN401 -- each of the classes of measurements
        arrays = {
            name: np.zeros_like(values) if name in TOTALS else np.empty(images, values.dtype)
            for name, values in vars(found).items()
        }
        return type(found)(**arrays)

    return Measures(
        **{
            table.name: {key: emptied(found) for key, found in getattr(like, table.name).items()}
            for table in fields(Measures)
        }
    )
