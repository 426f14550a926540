"""Logs of trainings that are interrupted and resumed."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import lightning
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ccr_deploy.errors import CcrDeployError
from tests.unit.training.loop.test_progress import FIXED, Line, numbers
from training.loop.loggers import training_loggers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


def train(output: Path, steps: int, first_step: int = 0, *callbacks: lightning.Callback) -> None:
    trainer = lightning.Trainer(
        **{**FIXED, "enable_checkpointing": bool(callbacks)},
        logger=training_loggers(output, first_step),
        max_steps=steps,
        log_every_n_steps=2,
        callbacks=list(callbacks),
    )
    trainer.fit(Line(), numbers(20), numbers(4), ckpt_path=output / "last.ckpt" if first_step else None)


class Killed(lightning.Callback):
    """End the training before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def steps(output: Path, name: str) -> list[int]:
    return [int(row["step"]) for row in rows(output) if row[name]]


def tensorboard(output: Path, name: str) -> dict[int, float]:
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def test_both_logs_have_the_same_values(tmp_path: Path) -> None:
    train(tmp_path, 20)
    for name in ("loss", "validation"):
        found = {int(row["step"]): float(row[name]) for row in rows(tmp_path) if row[name]}
        assert tensorboard(tmp_path, name) == pytest.approx(found, rel=1e-5)
    assert steps(tmp_path, "loss") == list(range(1, 20, 2))
    assert steps(tmp_path, "validation") == [9, 19]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "tensorboard"]


@pytest.mark.parametrize("checkpoint_step", [4, 5, 10, 13])
def test_a_resumed_training_continues_both_logs(tmp_path: Path, checkpoint_step: int) -> None:
    saving = ModelCheckpoint(tmp_path, "last", every_n_train_steps=checkpoint_step, save_last=False)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path, 20, 0, saving, Killed(checkpoint_step + 3))
    assert steps(tmp_path, "loss")[-1] > checkpoint_step
    with (tmp_path / "metrics.csv").open("a", newline="") as file:
        file.write(f"0,0.5,{checkpoint_step}")  # the beginning of a line
    train(tmp_path, 20, checkpoint_step)
    assert steps(tmp_path, "loss") == list(range(1, 20, 2))
    assert steps(tmp_path, "validation") == [9, 19]
    assert list(tensorboard(tmp_path, "loss")) == list(range(1, 20, 2))


def test_a_checkpoint_is_never_ahead_of_the_logs(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Watched(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
            if trainer.global_step == 7:
                seen.extend([steps(tmp_path, "loss"), list(tensorboard(tmp_path, "loss"))])

    saving = ModelCheckpoint(tmp_path, "last", every_n_train_steps=7)
    train(tmp_path, 8, 0, saving, Watched())
    assert seen == [[1, 3, 5], [1, 3, 5]]


def test_a_new_training_in_the_same_folder_starts_the_logs_again(tmp_path: Path) -> None:
    train(tmp_path, 20)
    train(tmp_path, 8)
    assert steps(tmp_path, "loss") == [1, 3, 5, 7]
    assert list(tensorboard(tmp_path, "loss")) == [1, 3, 5, 7]


def test_every_row_is_in_the_file_before_the_training_ends(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watched(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
            if trainer.global_step and trainer.global_step % 2 == 0:
                seen.append(len(steps(tmp_path, "loss")))

    train(tmp_path, 10, 0, Watched())
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("content", ["", "\r\n"])
def test_an_empty_log_is_continued(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    train(tmp_path, 4)
    assert steps(tmp_path, "loss") == [1, 3]


@pytest.mark.parametrize("content", [b"a,b\r\n1,2\r\n", b"step,loss\r\nx,2\r\n", b"\xff\xfe\x00\n\n"])
def test_another_file_under_the_name_is_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(CcrDeployError, match=r"metrics\.csv: not the log of a training .*: move it away"):
        training_loggers(tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == content
