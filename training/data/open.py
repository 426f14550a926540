"""Open the data of a training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.data.photos import TestCrops, TrainingCrops, load_photos

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.utils.data import Dataset


@dataclass(frozen=True)
class TestImages:
    """Images to evaluate with.

    Attributes:
        name: the name of the data in results, for people.
        dataset: by number, the image ``uint8 [H, W, 3]`` and its label.
        groups: the group of each image, by name; images of one group are correlated.
    """

    __test__ = False  # pytest would take it for a test

    name: str
    dataset: Dataset[tuple[Tensor, int]]
    groups: Sequence[str]


@dataclass(frozen=True)
class TrainingData:
    """Training and test images of one task.

    Attributes:
        training: images ``uint8 [H, W, 3]`` with labels; its keys are `training.data.batches.Sample`.
        test: the test images.
        class_names: names of the labels 0, 1, ….
        fingerprint: digest of names and labels; a resumed training must have the same.
        summary: one line for the reader.
    """

    training: Dataset[tuple[Tensor, int]]
    test: TestImages
    class_names: tuple[str, ...]
    fingerprint: str
    summary: str


def open_photos(size: int) -> TrainingData:
    """Open scikit-image's photos as crops of `size` pixels."""
    photos = load_photos()
    training, test = TrainingCrops(photos, size), TestCrops(photos, size)
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(photo.pixels.tobytes())
    return TrainingData(
        training,
        TestImages("scikit-image's photos", test, test.groups),
        tuple(photo.name for photo in photos),
        digest.hexdigest(),
        f"{len(training)} training crops in each epoch and {len(test)} test crops of {len(photos)} photos",
    )
