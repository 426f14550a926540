from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from tests.support.training_images import write_folders
from training.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def check(folder: Path, *options: str) -> Result:
    arguments = ["finetune", "--recipe", "imagenet100-layer1", "--data", str(folder)]
    return CliRunner().invoke(cli, [*arguments, "--output", str(folder / "out"), "--check", *options])


def test_each_finding_is_a_line_and_nothing_is_trained(tmp_path: Path) -> None:
    outcome = check(write_folders(tmp_path))
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines()[:2] == [
        "train: 12 images, 3 classes, 4 per class",
        "val: 6 images, 3 classes, 2 per class",
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["training-images.png"]


def test_an_unusable_image_fails_the_check(tmp_path: Path) -> None:
    (write_folders(tmp_path) / "val" / "coffee" / "0.JPEG").write_text("no image")
    assert check(tmp_path).exit_code == 1
    outcome = check(tmp_path, "--json")
    assert outcome.exit_code == 1
    assert len(json.loads(outcome.stdout)["test"]["unusable"]) == 1
