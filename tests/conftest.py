"""What tests share: small models, bundles of them, a store, real crops, weights trained for seconds."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from msgspec import structs

from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import CcrDeployError
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import Checkpoint, save_checkpoint, untrained_checkpoint
from ccr_deploy.models.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig
from ccr_deploy.quantization.recipe import Recipe
from ccr_deploy.workflow.calibrate import calibrate_bundle
from ccr_deploy.workflow.export import export_with_fp16
from training.data.textures import (
    TestCrops,
    TrainingCrops,
    load_photos,
    write_calibration_images,
    write_test_images,
)
from training.demo import RECIPE
from training.recipe import train

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.workflow.calibrate import Calibration
    from tests.support.workers import Shared

pytest_plugins = ("tests.support.left_processes", "tests.support.workers")

sys.modules.setdefault("openvino_telemetry", None)  # tests import OpenVINO by themselves, too
torch.set_num_threads(1)  # tiny models gain nothing from more, which wait for each other on a busy machine

TINY = ModelConfig(
    image_height=32,
    image_width=48,
    iterations=3,
    encoder=EncoderConfig(stem_channels=4, cell_channels=(4, 6, 8), code_channels=16),
    classifier=ClassifierConfig(cut="layer2", classes=5, stage_channels=(4, 6, 8, 10)),
)
TINY_BASELINE = structs.replace(
    TINY,
    decoder=DecoderConfig(cell_channels=(8, 6, 6, 4)),
    classifier=ClassifierConfig(cut=None, classes=7, stage_channels=(4, 6, 8, 10)),
)
ALL_SCHEDULES = ("iteration-major", "layer-major", "plain")


def gpu_obstacle() -> str | None:
    """Why no GPU can be used here; None where one can."""
    try:
        find_gpu()
    except CcrDeployError as error:
        return str(error)
    return None


def gpu_is_there() -> bool:
    return gpu_obstacle() is None


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Checkpoint:
    """Random weights that say that they were trained with the configuration's T."""
    names = ("apple", "bread", "cheese", "dates", "egg")
    return replace(untrained_checkpoint(TINY), class_names=names, trained_iterations=(TINY.iterations,))


@pytest.fixture(scope="session")
def tiny_baseline() -> Checkpoint:
    return replace(untrained_checkpoint(TINY_BASELINE), trained_iterations=(TINY.iterations,))


@pytest.fixture(scope="session")
def tiny_checkpoint_file(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Checkpoint, tiny_baseline: Checkpoint, shared: Shared) -> Bundle:
    """A bundle with every schedule and a baseline. Tests read it; those that damage one copy it first."""

    def export(folder: Path) -> Bundle:
        return export_bundle(
            tiny_checkpoint, folder / "bundle", schedules=ALL_SCHEDULES, baseline=tiny_baseline
        )

    return shared.made_once("tiny", export)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    return EngineStore(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def built_store(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    """A store with the tiny bundle's engines for the target cpu, and no others."""
    store = EngineStore(tmp_path_factory.mktemp("built") / "engines")
    factory = EngineFactory(tiny_bundle, "cpu", store)
    for stage in ("encoder", "classifier", "baseline"):
        factory.build(stage)
    store.choose(tiny_bundle, "cpu", {stage: factory.resolved(stage) for stage in ("encoder", "classifier")})
    return store


@pytest.fixture(scope="session")
def real_crops() -> npt.NDArray[np.uint8]:
    """1,280 crops of real photos, ``uint8 [1280, 48, 48, 3]``."""
    crops = TestCrops(load_photos(), 48)
    return np.concatenate([crops[label][0].numpy() for label in range(len(crops))])


@pytest.fixture(scope="session")
def trained_checkpoint(shared: Shared) -> Checkpoint:
    """The demo's model after a few seconds of training: weights that are no longer random."""
    recipe = replace(
        RECIPE,
        pretraining=replace(RECIPE.pretraining, steps=5),
        training=replace(RECIPE.training, steps=40),
    )

    def run(_: Path) -> Checkpoint:
        photos = load_photos()
        names = [photo.name for photo in photos]
        return train(recipe, TrainingCrops(photos, 48, 32, seed=0), TestCrops(photos, 48), names)

    return shared.made_once("trained", run)


@dataclass(frozen=True)
class CalibratedDemo:
    """A briefly trained model of the demo's kind in a bundle with all precisions, and its pictures."""

    folder: Path
    calibration: Calibration

    @property
    def bundle(self) -> Bundle:
        return self.calibration.bundle

    @property
    def pictures(self) -> Path:
        return self.folder / "calibration"


@pytest.fixture(scope="session")
def calibrated_demo(trained_checkpoint: Checkpoint, shared: Shared) -> CalibratedDemo:
    """Every schedule in FP32, FP16 and INT8. Tests read it; those that change one copy it first."""

    def calibrate(folder: Path) -> CalibratedDemo:
        photos = load_photos()
        write_test_images(photos, 48, folder / "images")
        write_calibration_images(photos, 48, folder / "calibration")
        exported = export_with_fp16(
            trained_checkpoint, folder / "bundle", schedules=ALL_SCHEDULES, images=folder / "images"
        )
        recipe = Recipe(samples=64, held_out_samples=320)
        calibration = calibrate_bundle(
            exported, folder / "calibration", recipe, held_out=folder / "images", with_sensitivity=True
        )
        return CalibratedDemo(folder, calibration)

    return shared.made_once("calibrated", calibrate)
