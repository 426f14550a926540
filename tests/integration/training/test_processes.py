"""Trainings in several processes: the same gradients, one output, one error."""

from __future__ import annotations

import csv
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.training_gradients import read_gradients, read_losses, relative_differences
from ccr_deploy.models.checkpoint import load_checkpoint
from ccr_deploy.models.compressor_file import load_compressor
from tests.support.training_processes import be_process, signal_at, train

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """
description = "a short training"
preset = "demo"
data = "photos"
iterations = [1, 2]

[decoder]
cell_channels = [16, 16, 8, 8]

[pretrain]
epochs = 0.4            # 8 steps
batch = 64
learning_rate = 2e-3
validations = 1

[finetune]
epochs = 0.4
batch = 64
learning_rate = 3e-3
frozen_share = 0.5
validations = 1
"""
SECONDS = 300


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "short.toml"
    path.write_text(RECIPE)
    return path


def options(recipe: Path, step: str, folder: Path) -> list[str]:
    arguments = [step, "--recipe", recipe, "--output", folder, "--threads", 1, "--save-every", 4]
    return [str(argument) for argument in (*arguments, "--log-every", 1)]


def torchrun(*arguments: str, processes: int = 2) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *arguments]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)


def losses(folder: Path) -> torch.Tensor:
    with (folder / "metrics.csv").open(newline="") as file:
        return torch.tensor([float(row["loss"]) for row in csv.DictReader(file) if row["loss"]])


def test_two_processes_have_the_gradients_of_one_in_20_steps_of_pretraining(tmp_path: Path) -> None:
    # In FP64: in FP32, rounding may flip a bit whose random number is near its probability.
    program = [sys.executable, "-m", "benchmarks.training_gradients", "--double", "--steps", "20"]
    for name, devices in (("one", 1), ("two", 2)):
        ended = run([*program, "--devices", str(devices), "pretrain", str(tmp_path / name)])
        assert ended.returncode == 0, ended.stderr
    one, two = (read_gradients(tmp_path / name) for name in ("one", "two"))
    assert one.shape[0] == 20
    assert max(relative_differences(two, one)) < 1e-5
    assert max(relative_differences(one[1:], one[:-1])) > 0.1  # steps differ by far more
    torch.testing.assert_close(
        read_losses(tmp_path / "two"), read_losses(tmp_path / "one"), rtol=1e-5, atol=0
    )


def test_torchrun_with_accumulation_trains_like_one_process_and_prints_once(
    recipe: Path, tmp_path: Path
) -> None:
    one = train(*options(recipe, "pretrain", tmp_path / "one"))
    arguments = [*options(recipe, "pretrain", tmp_path / "two"), "--micro-batch", "16"]
    two = run(torchrun("--standalone", "-m", "training", *arguments))
    assert two.returncode == 0, two.stderr
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4, atol=0)
    assert two.stdout.count("compressor.pt") == 1
    assert len(two.stdout.splitlines()) == len(one.stdout.splitlines())
    assert len(re.findall(r"step 8 of 8", two.stderr)) == 1
    assert len(list((tmp_path / "two" / "tensorboard").glob("events.*"))) == 1
    found, expected = (load_compressor(tmp_path / name / "compressor.pt") for name in ("two", "one"))
    assert found.metrics["l1"] == pytest.approx(expected.metrics["l1"], rel=1e-3)

    finished = options(recipe, "pretrain", tmp_path / "two")
    assert train(*finished).stdout == two.stdout
    second = train(*finished, prepare=partial(be_process, 1))
    assert (second.status, second.stdout, second.stderr) == (0, "", "")


def run_on_nodes(recipe: Path, *folders: Path) -> list[subprocess.CompletedProcess[str]]:
    """Fine-tune on one node for each output folder, with one process each; all nodes are this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    commands = [
        torchrun(
            *("--nnodes", str(len(folders)), "--node-rank", str(number)),
            *("--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "training"),
            *options(recipe, "finetune", folder),
            processes=1,
        )
        for number, folder in enumerate(folders)
    ]
    with ThreadPoolExecutor() as threads:
        return list(threads.map(run, commands))


def test_two_nodes_finetune_one_checkpoint(recipe: Path, tmp_path: Path) -> None:
    first, second = run_on_nodes(recipe, tmp_path, tmp_path)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "checkpoint.pt" in first.stdout
    assert second.stdout == ""
    assert load_checkpoint(tmp_path / "checkpoint.pt").trained_iterations == (1, 2)
    assert torch.isfinite(losses(tmp_path)).all()


def test_nodes_without_a_common_folder_do_not_continue(recipe: Path, tmp_path: Path) -> None:
    kill = partial(signal_at, 6, signal.SIGKILL)
    killed = train(*options(recipe, "finetune", tmp_path / "first"), prepare=kill)
    assert killed.status == -signal.SIGKILL
    state = (tmp_path / "first" / "state.ckpt").read_bytes()
    first, second = run_on_nodes(recipe, tmp_path / "first", tmp_path / "second")
    assert first.returncode != 0
    assert second.returncode != 0
    assert (
        "state.ckpt: the processes would continue at different steps, [0, 4]: give an --output on a file "
        "system that all nodes share"
    ) in first.stderr
    assert "different steps" not in second.stderr
    assert (tmp_path / "first" / "state.ckpt").read_bytes() == state


def test_a_batch_that_cannot_be_divided_is_one_line(recipe: Path, tmp_path: Path) -> None:
    refused = train(*options(recipe, "pretrain", tmp_path / "run"), "--devices", 3)
    assert refused.status == 2
    assert refused.error_line == (
        "python -m training: error: the recipe's batch of 64 images cannot be divided into micro-batches of "
        "21 for each of 3 processes: change --micro-batch or --devices"
    )


@pytest.fixture(scope="module")
def plain(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The losses of both trainings in FP32, by the command."""
    folder = tmp_path_factory.mktemp("plain")
    for step in ("pretrain", "finetune"):
        assert train(*options(recipe, step, folder / step)).status == 0
    return {step: losses(folder / step) for step in ("pretrain", "finetune")}


@pytest.mark.parametrize(
    ("step", "faster"),
    [
        ("pretrain", "--precision bf16"),
        ("pretrain", "--channels-last"),
        ("finetune", "--precision bf16 --channels-last"),
    ],
)
def test_faster_options_give_almost_the_same_losses(
    step: str, faster: str, recipe: Path, plain: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    ended = train(*options(recipe, step, tmp_path / "run"), *faster.split())
    assert ended.status == 0, ended.stderr
    torch.testing.assert_close(losses(tmp_path / "run"), plain[step], rtol=0.05, atol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_give_almost_the_same_losses(recipe: Path, tmp_path: Path) -> None:
    def finetune(folder: Path) -> list[str]:
        return [*options(recipe, "finetune", folder), "--iterations", "2"]

    assert train(*finetune(tmp_path / "plain")).status == 0
    compiled = run([sys.executable, "-m", "training", *finetune(tmp_path / "compiled"), "--compile"])
    assert compiled.returncode == 0, compiled.stderr
    torch.testing.assert_close(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), rtol=1e-3, atol=0)
