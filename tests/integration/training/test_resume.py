"""Trainings that are killed, interrupted or refused, and continued by the same command."""

from __future__ import annotations

import csv
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from ccr_deploy.models.checkpoint_file import read_checkpoint
from tests.support.training_processes import (
    PATIENCE_SECONDS,
    kill_in_evaluation,
    limit_files,
    signal_at,
    started,
    train,
)

RECIPE = """
description = "a short training"
preset = "demo"
data = "photos"
iterations = [1, 2]

[decoder]
cell_channels = [16, 16, 8, 8]

[pretrain]
epochs = 0.6            # 12 steps
batch = 64
learning_rate = 2e-3
validations = 2

[finetune]
epochs = 1.4            # 28 steps, of which 20 are an epoch
batch = 64
learning_rate = 3e-3
frozen_share = 0.2      # from step 22 on
validations = 3
"""
TIMES = {"images_per_second", "data_wait_percent"}
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "short.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def command(recipe: Path, tmp_path: Path) -> list[object]:
    """A fine-tuning in ``tmp_path / "run"``."""
    return [*options(recipe, "finetune"), "--output", tmp_path / "run"]


def options(recipe: Path, step: str) -> list[object]:
    return [step, "--recipe", recipe, "--threads", 1, "--save-every", 5, "--log-every", 1]


def logged(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the log without the times of the machine."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)
        ]


def assert_same_training(folder: Path, expected: Path, result: str) -> None:
    assert logged(folder) == logged(expected)
    found, wanted = (read_checkpoint(path / result)["state_dict"] for path in (folder, expected))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
    assert not (folder / "state.ckpt").exists()


@pytest.mark.timeout(1800)  # six trainings in succession
def test_a_finetuning_killed_at_five_places_gives_the_losses_and_weights_of_an_uninterrupted_one(
    recipe: Path, command: list[object], tmp_path: Path
) -> None:
    whole = train(*options(recipe, "finetune"), "--output", tmp_path / "whole")
    assert whole.status == 0, whole.stderr
    middle_of_an_epoch, start_of_an_epoch, frozen = 7, 20, 24
    for workers, batch in enumerate((middle_of_an_epoch, start_of_an_epoch, frozen)):
        kill = partial(signal_at, batch, signal.SIGKILL)
        assert train(*command, "--workers", workers, prepare=kill).status == KILLED
        saved = batch - 1 - (batch - 1) % 5 if batch % 5 else batch - 5
        assert read_checkpoint(tmp_path / "run" / "state.ckpt")["global_step"] == saved
    assert train(*command, prepare=kill_in_evaluation).status == KILLED
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")
    assert train(*command).status == 0
    assert_same_training(tmp_path / "run", tmp_path / "whole", "checkpoint.pt")
    assert len({row["loss"] for row in logged(tmp_path / "run")} - {""}) == 28


def test_a_pretraining_continues_with_other_micro_batches(recipe: Path, tmp_path: Path) -> None:
    assert train(*options(recipe, "pretrain"), "--output", tmp_path / "whole").status == 0
    command = [*options(recipe, "pretrain"), "--output", tmp_path / "run"]
    sixth_step = 6 * 64 // 16
    killed = train(
        *(*command, "--micro-batch", 16, "--workers", 2),
        prepare=partial(signal_at, sixth_step + 2, signal.SIGKILL),
    )
    assert killed.status == KILLED
    # The lock is free at once, although the loader's processes need seconds to notice.
    assert train(*command, "--micro-batch", 32).status == 0
    expected, found = (logged(tmp_path / name) for name in ("whole", "run"))
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for name in ("loss", "validation_l1"):
        torch.testing.assert_close(column(found, name), column(expected, name), rtol=1e-4, atol=0)


def column(rows: list[dict[str, str]], name: str) -> torch.Tensor:
    return torch.tensor([float(row[name]) for row in rows if row[name]])


def test_ctrl_c_says_how_to_continue_and_a_state_is_used_only_if_it_fits(
    recipe: Path, command: list[object], tmp_path: Path
) -> None:
    state = tmp_path / "run" / "state.ckpt"
    interrupted = train(*command, prepare=partial(signal_at, 6, signal.SIGINT))
    assert interrupted.status == 130
    assert interrupted.error_line == (
        "python -m training: interrupted: no file is left incomplete; run the same command again to continue"
    )
    assert read_checkpoint(state)["global_step"] == 5
    intact = state.read_bytes()

    other = train(*command, "--seed", 1)
    assert other.status == 2
    assert "run.json: the training in this folder was started with seed = 0, not 1" in other.error_line

    full = train(*command, prepare=partial(limit_files, 100_000))
    assert full.status == 3
    assert f"{state}: cannot be written (" in full.error_line
    assert state.read_bytes() == intact
    assert [path.name for path in state.parent.iterdir() if path.name.endswith(".tmp")] == []

    state.write_bytes(intact[: len(intact) // 2])
    damaged = train(*command)
    assert damaged.status == 3
    assert str(state) in damaged.error_line


def test_a_second_training_in_a_folder_is_refused(command: list[object], tmp_path: Path) -> None:
    with started(*command, prepare=partial(signal_at, 2, signal.SIGSTOP)) as (process, outcome):
        wait_until_stopped(process.pid)
        second = train(*command)
        assert second.status == 3
        assert second.error_line == (
            f"python -m training: error: {tmp_path / 'run'}: another command is writing to it: "
            "wait until it ends"
        )
        os.kill(process.pid, signal.SIGCONT)
        assert outcome().status == 0


def wait_until_stopped(process: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.05)
