"""The demo's training command with few steps. `make demo` runs it in full."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner
from training.data.textures import TrainingCrops

from benchmarks.hosts.processes import hearing_ctrl_c
from ccr_deploy.models.checkpoint import build_model, load_checkpoint
from training import demo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = demo.RECIPE
    short = replace(
        recipe,
        pretraining=replace(recipe.pretraining, steps=2),
        training=replace(recipe.training, steps=4),
    )
    monkeypatch.setattr(demo, "RECIPE", short)


@pytest.mark.usefixtures("few_steps")
def test_demo_writes_a_checkpoint_with_test_and_calibration_images(tmp_path: Path) -> None:
    output = tmp_path / "new" / "demo"
    stale = output / "images" / "astronaut" / "stale.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    result = CliRunner().invoke(demo.main, ["--output", str(output)], catch_exceptions=False)
    assert result.exit_code == 0
    (line,) = result.output.splitlines()
    checkpoint = load_checkpoint(output / "checkpoint.pt")
    metrics = checkpoint.metrics
    assert f"{metrics['top1_percent']:.1f} % top-1" in line
    assert f"{metrics['top1_percent_low']:.1f} to {metrics['top1_percent_high']:.1f} %" in line
    assert 0 < metrics["pretraining_l1"] < 0.5
    assert sorted(path.name for path in output.iterdir()) == ["calibration", "checkpoint.pt", "images"]
    assert checkpoint.class_names == tuple(sorted(path.name for path in (output / "images").iterdir()))
    assert len(list((output / "images").rglob("*.png"))) >= 1000
    assert len(list((output / "calibration").rglob("*.png"))) == 256
    assert not stale.exists()
    logits = build_model(checkpoint)(torch.zeros(1, 3, 48, 48))
    assert logits.shape == (1, 16)


class InterruptedCrops(TrainingCrops):
    """Simulate Ctrl-C while the third batch is made."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(super().__iter__()):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            yield batch


def test_ctrl_c_keeps_the_previous_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TrainingCrops", InterruptedCrops)
    (tmp_path / "checkpoint.pt").write_bytes(b"an earlier one")
    with hearing_ctrl_c():
        result = CliRunner().invoke(demo.main, ["--output", str(tmp_path)])
    assert result.exit_code != 0
    assert "top-1" not in result.output
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"an earlier one"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
