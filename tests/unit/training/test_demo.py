"""The demo's training command with few steps. `make demo` runs it in full."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner
from msgspec import structs

from benchmarks.hosts.processes import hearing_ctrl_c
from ccr_deploy.models.checkpoint import build_model, load_checkpoint
from training import demo
from training.data import open as opening
from training.data.photos import TrainingCrops

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from training.data.batches import Sample


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.RECIPE.pretrain is not None
    assert demo.RECIPE.finetune is not None
    short = structs.replace(
        demo.RECIPE,
        pretrain=structs.replace(demo.RECIPE.pretrain, epochs=0.1),  # 2 steps
        finetune=structs.replace(demo.RECIPE.finetune, epochs=0.2),
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
    *_, line = result.output.splitlines()
    checkpoint = load_checkpoint(output / "checkpoint.pt")
    metrics = checkpoint.metrics
    assert f"{metrics['top1_percent']:.1f} % top-1" in line
    assert f"{metrics['top1_percent_low']:.1f} to {metrics['top1_percent_high']:.1f} %" in line
    assert sorted(path.name for path in output.iterdir()) == ["calibration", "checkpoint.pt", "images"]
    assert checkpoint.class_names == tuple(sorted(path.name for path in (output / "images").iterdir()))
    assert len(list((output / "images").rglob("*.png"))) >= 1000
    assert len(list((output / "calibration").rglob("*.png"))) == 256
    assert not stale.exists()
    logits = build_model(checkpoint)(torch.zeros(1, 3, 48, 48))
    assert logits.shape == (1, 16)


class InterruptedCrops(TrainingCrops):
    """Simulate Ctrl-C while the third batch is made."""

    def __getitem__(self, sample: Sample) -> tuple[Tensor, int]:
        self.loaded = getattr(self, "loaded", 0) + 1
        if self.loaded == 2 * 64 + 1:
            signal.raise_signal(signal.SIGINT)
        return super().__getitem__(sample)


@pytest.mark.usefixtures("few_steps")
def test_ctrl_c_keeps_the_previous_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "TrainingCrops", InterruptedCrops)
    (tmp_path / "checkpoint.pt").write_bytes(b"an earlier one")
    with hearing_ctrl_c():
        result = CliRunner().invoke(demo.main, ["--output", str(tmp_path)])
    assert result.exit_code != 0
    assert "top-1" not in result.output
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"an earlier one"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
