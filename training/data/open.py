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
class TrainingData:
    """Training and test images of one task.

    Attributes:
        training: images ``uint8 [H, W, 3]`` with labels; its keys are `training.data.batches.Sample`.
        test: the same without augmentation; its keys are integers.
        class_names: names of the labels 0, 1, ….
        test_groups: the group of each test image; images of one group are correlated.
        fingerprint: digest of names and labels; a resumed training must have the same.
        summary: one line for the reader.
    """

    training: Dataset[tuple[Tensor, int]]
    test: Dataset[tuple[Tensor, int]]
    class_names: tuple[str, ...]
    test_groups: Sequence[str]
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
        test,
        tuple(photo.name for photo in photos),
        test.groups,
        digest.hexdigest(),
        f"{len(training)} training crops in each epoch and {len(test)} test crops of {len(photos)} photos",
    )
