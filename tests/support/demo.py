"""Pytest plugin with fixtures of the demo: real crops, a briefly trained checkpoint, a calibrated bundle.

Heavy libraries are imported inside the fixtures, so that tests without these fixtures start quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.core.stages import SCHEDULES

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.models.checkpoint import Checkpoint
    from ccr_deploy.workflow.calibrate import Calibration
    from tests.support.workers import Shared


@dataclass(frozen=True)
class CalibratedDemo:
    """A bundle of the briefly trained demo model with all precisions, and its images."""

    folder: Path
    calibration: Calibration

    @property
    def bundle(self) -> Bundle:
        return self.calibration.bundle

    @property
    def images(self) -> Path:
        return self.folder / "calibration"


@pytest.fixture(scope="session")
def real_crops() -> npt.NDArray[np.uint8]:
    """1,280 crops of real photos, ``uint8 [1280, 48, 48, 3]``."""
    import numpy as np

    from training.data.photos import TestCrops, load_photos

    crops = TestCrops(load_photos(), 48)
    return np.stack([crops[index][0].numpy() for index in range(len(crops))])


@pytest.fixture(scope="session")
def trained_checkpoint(shared: Shared) -> Checkpoint:
    """The demo's model after a few seconds of training, with weights that are no longer random."""
    return shared.made_once("trained", lambda _: train_demo_briefly(pretrain_epochs=0.125, finetune_epochs=1))


def train_demo_briefly(pretrain_epochs: float, finetune_epochs: float) -> Checkpoint:
    """Train the demo's model with batches of 32: an epoch has 40 steps."""
    from training.demo import train_briefly

    return train_briefly(pretrain_epochs, finetune_epochs)


@pytest.fixture(scope="session")
def calibrated_demo(trained_checkpoint: Checkpoint, shared: Shared) -> CalibratedDemo:
    """All schedules in FP32, FP16 and INT8. Shared and read-only: copy it to modify it."""
    from ccr_deploy.export.exporter import export_bundle
    from ccr_deploy.quantization.converters import CONVERTERS
    from ccr_deploy.quantization.recipe import CalibrationRecipe
    from ccr_deploy.workflow.calibrate import calibrate_bundle
    from training.data.photos import load_photos, write_calibration_images, write_test_images

    def calibrate(folder: Path) -> CalibratedDemo:
        photos = load_photos()
        write_test_images(photos, 48, folder / "images")
        write_calibration_images(photos, 48, folder / "calibration")
        exported = export_bundle(
            trained_checkpoint,
            folder / "bundle",
            schedules=SCHEDULES,
            images=folder / "images",
            converters=CONVERTERS,
        )
        recipe = CalibrationRecipe(samples=64, held_out_samples=320)
        calibration = calibrate_bundle(
            exported, folder / "calibration", recipe, held_out=folder / "images", with_sensitivity=True
        )
        return CalibratedDemo(folder, calibration)

    return shared.made_once("calibrated", calibrate)
