"""The folder of a reader of the pages: a small model, its bundle, engines and images."""

from __future__ import annotations

import os
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from tests.docs.reader import Workspace, succeeded, tutorial_commands
from tests.support.bundles import TINY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.workers import Shared

CLASSES = ("brick", "camera", "coffee", "coins", "moon")
DEMO = Path("build/demo")


@pytest.fixture(scope="session")
def workspace(shared: Shared) -> Workspace:
    """Run the tutorial's `export` and `calibrate` on a small untrained model."""
    from ccr_deploy.models.checkpoint import save_checkpoint, untrained_checkpoint

    def make(folder: Path) -> Workspace:
        checkpoint = replace(
            untrained_checkpoint(TINY), class_names=CLASSES, trained_iterations=(TINY.iterations,)
        )
        (folder / DEMO).mkdir(parents=True)
        save_checkpoint(checkpoint, folder / "model.pt")
        save_checkpoint(checkpoint, folder / DEMO / "checkpoint.pt")
        generator = np.random.default_rng(2)
        write_image(folder / "photo.jpg", generator)
        for name in ("brick", "coffee"):
            for place in ("r0000c0000/0080.png", "r0000c0000/0480.png"):
                write_image(folder / DEMO / "images" / name / place, generator)
            write_image(folder / "val" / name / "0.png", generator)
            for number in range(20):
                write_image(folder / DEMO / "calibration" / name / f"{number}.png", generator)
                write_image(folder / "train" / name / f"{number}.png", generator)
        recipe = folder / "calibration" / "demo.toml"
        recipe.parent.mkdir()
        recipe.write_text("samples = 16\nheld_out_samples = 4\n", encoding="utf-8")
        outcomes = {}
        with chdir(folder), patch.dict(os.environ, {"CCR_DEPLOY_ENGINES": str(folder / "engines")}):
            for command in tutorial_commands():
                if command.startswith(("ccr-deploy export", "ccr-deploy calibrate")):
                    outcomes[command] = succeeded(command)
            shutil.copytree(DEMO / "bundle", "bundle")
            succeeded("ccr-deploy build-engine bundle --target cpu")
        return Workspace(folder, outcomes)

    return shared.made_once("documents", make)


@pytest.fixture
def reader_folder(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the workspace as the current folder, with a separate engine store."""
    folder = tmp_path / "reader"
    shutil.copytree(workspace.folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CCR_DEPLOY_ENGINES", str(folder / "engines"))
    return folder


def write_image(path: Path, generator: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(generator.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
