"""Pytest plugin with fixtures of a tiny model: checkpoint, bundle with a baseline, and engine stores.

Heavy libraries are imported inside the fixtures, so that tests without these fixtures start quickly.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.core.stages import SCHEDULES
from ccr_deploy.models.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.models.checkpoint import Checkpoint
    from tests.support.workers import Shared

TINY = ModelConfig(
    image_height=32,
    image_width=48,
    iterations=3,
    encoder=EncoderConfig(stem_channels=4, cell_channels=(4, 6, 8), code_channels=16),
    classifier=ClassifierConfig(cut="layer2", classes=5, stage_channels=(4, 6, 8, 10)),
)
TINY_BASELINE = ModelConfig(
    image_height=TINY.image_height,
    image_width=TINY.image_width,
    iterations=TINY.iterations,
    encoder=TINY.encoder,
    decoder=DecoderConfig(cell_channels=(8, 6, 6, 4)),
    classifier=ClassifierConfig(cut=None, classes=7, stage_channels=(4, 6, 8, 10)),
)


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Checkpoint:
    """Random weights, recorded as trained with the configuration's T."""
    from ccr_deploy.models.checkpoint import untrained_checkpoint

    names = ("apple", "bread", "cheese", "dates", "egg")
    return replace(untrained_checkpoint(TINY), class_names=names, trained_iterations=(TINY.iterations,))


@pytest.fixture(scope="session")
def tiny_baseline() -> Checkpoint:
    from ccr_deploy.models.checkpoint import untrained_checkpoint

    return replace(untrained_checkpoint(TINY_BASELINE), trained_iterations=(TINY.iterations,))


@pytest.fixture(scope="session")
def tiny_checkpoint_file(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ccr_deploy.models.checkpoint import save_checkpoint

    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Checkpoint, tiny_baseline: Checkpoint, shared: Shared) -> Bundle:
    """A bundle with all schedules and a baseline. Shared and read-only: copy it to modify it."""
    from ccr_deploy.export.exporter import export_bundle

    def export(folder: Path) -> Bundle:
        return export_bundle(tiny_checkpoint, folder / "bundle", schedules=SCHEDULES, baseline=tiny_baseline)

    return shared.made_once("tiny", export)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    from ccr_deploy.engines.store import EngineStore

    return EngineStore(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def built_store(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    """A store with only the tiny bundle's engines for the target cpu. Shared and read-only."""
    from ccr_deploy.engines.factory import EngineFactory
    from ccr_deploy.engines.store import EngineStore

    store = EngineStore(tmp_path_factory.mktemp("built") / "engines")
    factory = EngineFactory(tiny_bundle, "cpu", store)
    for stage in ("encoder", "classifier", "baseline"):
        factory.build(stage)
    store.choose(tiny_bundle, "cpu", {stage: factory.resolved(stage) for stage in ("encoder", "classifier")})
    return store


@pytest.fixture
def own_store(built_store: EngineStore, tmp_path: Path) -> EngineStore:
    """A copy of the store with the tiny bundle's engines, which a test may modify or add to."""
    from ccr_deploy.engines.store import EngineStore

    return EngineStore(Path(shutil.copytree(built_store.path, tmp_path / "engines")))
