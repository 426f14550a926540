"""The flip tolerance of a trained model predicts what flips cost on other images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from ccr_deploy.bundle.tolerance import (
    FlippedKind,
    FlipTolerance,
    classes_after_flips,
    flip,
    flip_tolerance,
    order_of,
)
from ccr_deploy.codec.contract import pack_code
from ccr_deploy.core.metrics import grouped_bootstrap_interval
from ccr_deploy.verification.reference import as_margins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.models.checkpoint import Checkpoint
    from tests.support.workers import Shared

BROKE, WRONG_USAGE = 3, 2
BITS = 288  # of a code of the demo's model


@dataclass(frozen=True)
class Coded:
    """Codes of the demo's test crops, `margins` of their bits, and how to classify codes."""

    codes: npt.NDArray[np.uint8]
    margins: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    classify: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

    def part(self, chosen: npt.NDArray[np.bool_]) -> Coded:
        rows = (array[chosen] for array in (self.codes, self.margins, self.labels, self.groups))
        return Coded(*rows, self.classify)

    def tolerance(self) -> FlipTolerance:
        classes = classes_after_flips(self.codes, self.margins, self.classify)
        return flip_tolerance(
            classes, BITS, labels=self.labels.tolist(), groups=self.groups.tolist(), images="test crops"
        )


class PlantedLoss(NamedTuple):
    points: float
    low: float
    high: float
    flipped_percent: float


def planted_loss(coded: Coded, kind: FlippedKind, percent: float) -> PlantedLoss:
    """Flip bits and measure what it costs, without the code that measures a tolerance."""
    count = round(percent * BITS / 100)
    flipped = flip(coded.codes, order_of(kind, coded.codes, coded.margins), count)
    right, still_right = (
        coded.classify(codes).argmax(axis=1) == coded.labels for codes in (coded.codes, flipped)
    )
    lost = 100 * (right.astype(np.float64) - still_right)
    interval = grouped_bootstrap_interval(lost, coded.groups.tolist())
    return PlantedLoss(lost.mean(), interval.low, interval.high, 100 * count / BITS)


@pytest.fixture(scope="module")
def well_trained(shared: Shared) -> Checkpoint:
    """The demo's model after a third of its training: well above chance, so that flips cost something."""
    from training.data.textures import TestCrops, TrainingCrops, load_photos
    from training.demo import RECIPE
    from training.train import train

    recipe = replace(
        RECIPE,
        pretraining=replace(RECIPE.pretraining, steps=50),
        training=replace(RECIPE.training, steps=300),
    )

    def run(_: Path) -> Checkpoint:
        photos = load_photos()
        names = [photo.name for photo in photos]
        return train(recipe, TrainingCrops(photos, 48, 32, seed=0), TestCrops(photos, 48), names)

    return shared.made_once("well-trained", run)


@pytest.fixture(scope="module")
def coded(well_trained: Checkpoint) -> Coded:
    import torch

    from ccr_deploy.codec.contract import unpack_code
    from ccr_deploy.models.chain import normalise
    from ccr_deploy.models.checkpoint import build_model
    from training.data.textures import TestCrops, load_photos, test_crops

    photos = load_photos()
    crops = TestCrops(photos, 48)
    images = torch.cat([crops[label][0] for label in range(len(crops))])
    labels = np.concatenate([crops[label][1].numpy() for label in range(len(crops))])
    groups = np.array([f"{crop.label} {crop.region}" for crop in test_crops(photos, 48)])
    model = build_model(well_trained).eval()
    with torch.inference_mode():
        activations = model.encoder.pre_binarization(
            normalise(images, well_trained.preprocessing), well_trained.config.iterations
        ).numpy()

    def classify(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return model.classifier(torch.from_numpy(unpack_code(codes, activations.shape[1:]))).numpy()

    flat = activations.reshape(len(activations), -1)
    return Coded(pack_code(flat), as_margins(flat), labels, groups, classify)
