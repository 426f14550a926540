"""Measure time and memory of ``ccr-deploy verify`` against an older version: ``ccr-layer1``, 224x224, T=8.

``python -m benchmarks.verification --baseline CHECKOUT`` verifies the same FP32 engines on the same 64 images
with the version in CHECKOUT (a git worktree of an older commit) and with this one, in processes of their own
and in turns, and writes ``benchmarks/results/verification-ccr-layer1.json``. The first run of this version
fills the cache of answers, the second one uses it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.scaffold import (
    MODEL,
    machine_words,
    publish,
    rounds_option,
    temporary_folder,
    write_images,
)
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.records import Record
from ccr_deploy.models.checkpoint import save_checkpoint, untrained_checkpoint
from ccr_deploy.models.presets import preset
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
IMAGES = 64
TARGET = "cpu-openvino"


class VerificationTiming(Record, frozen=True):
    """Medians over the rounds; the peak memory is that of the process, with engines and libraries."""

    run: str
    seconds_per_image: float
    cpu_seconds_per_image: float
    peak_memory_mib: float


class VerificationBenchmark(Record, frozen=True):
    """Time and memory of a verification by an older version, and of the first and second run of this one."""

    schema_version: int
    machine: MachineState
    model: str
    target: str
    images: int
    rounds: int
    baseline: str
    timings: tuple[VerificationTiming, ...]


@click.command()
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    metavar="CHECKOUT",
    help="Checkout of an older version.",
)
@rounds_option(3, "Interleaved rounds.")
def main(baseline: Path, rounds: int) -> None:
    """Measure, and write the result beside this script."""
    result = _measured(baseline.resolve(), rounds)
    publish("verification-ccr-layer1", result, verification_table(result))


def _measured(baseline: Path, rounds: int) -> VerificationBenchmark:
    machine = machine_state()
    found: dict[str, list[tuple[float, float, float]]] = {"before": [], "first run": [], "second run": []}
    with temporary_folder() as folder:
        save_checkpoint(untrained_checkpoint(preset(MODEL)), folder / "model.pt")
        write_images(folder / "images", preset(MODEL).image_height)
        # By the older version, whose manifests and sidecars this one reads too.
        _run(baseline, ["export", "--checkpoint", "model.pt", "--no-fp16", "bundle"], folder)
        built = ["build-engine", "bundle", "--target", TARGET, "--fp32", "--no-timing", "--engines", "built"]
        _run(baseline, built, folder)
        for _ in range(rounds):
            for name, source, store in (
                ("before", baseline, "before"),
                ("first run", ROOT, "after"),
                ("second run", ROOT, "after"),
            ):
                if name != "second run":
                    shutil.rmtree(folder / store, ignore_errors=True)
                    shutil.copytree(folder / "built", folder / store)
                options = ["--images", "images", "--samples", str(IMAGES), "--engines", store, "--json"]
                found[name].append(_run(source, ["verify", "bundle", "--target", TARGET, *options], folder))
    revision = subprocess.run(
        # The user's git, wherever it is.
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=baseline,
        capture_output=True,
        text=True,
        check=True,
    )
    return VerificationBenchmark(
        schema_version=1,
        machine=machine,
        model=f"{MODEL}, untrained, 224x224, T=8, FP32",
        target=TARGET,
        images=IMAGES,
        rounds=rounds,
        baseline=revision.stdout.strip(),
        timings=tuple(_timing(name, runs) for name, runs in found.items()),
    )


def _run(source: Path, arguments: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """Run the version in `source`; return wall seconds, CPU seconds, and peak memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "ccr_deploy", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    # An untrained model's classes are ties, so that a gate may fail: status 1.
    if os.waitstatus_to_exitcode(status) not in {0, 1}:
        raise click.ClickException(f"{source}: ccr-deploy {arguments[0]} failed")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _timing(name: str, runs: Sequence[tuple[float, float, float]]) -> VerificationTiming:
    seconds, cpu_seconds, memory = (statistics.median(values) for values in zip(*runs, strict=True))
    return VerificationTiming(
        run=name,
        seconds_per_image=round(seconds / IMAGES, 3),
        cpu_seconds_per_image=round(cpu_seconds / IMAGES, 3),
        peak_memory_mib=round(memory),
    )


def verification_table(result: VerificationBenchmark) -> Table:
    """Return a row for each run."""
    return Table.of(
        "Time and memory of a verification",
        result.timings,
        [
            ("run", lambda timing: f"{result.baseline}" if timing.run == "before" else timing.run),
            ("s/image", lambda timing: f"{timing.seconds_per_image:.2f}"),
            ("CPU s/image", lambda timing: f"{timing.cpu_seconds_per_image:.2f}"),
            ("peak MiB", lambda timing: f"{timing.peak_memory_mib:.0f}"),
        ],
        note=f"{result.model}, {result.images} images, {result.target}, {result.rounds} interleaved rounds "
        f"on {machine_words(result.machine)}; {result.baseline}: an older version, without cache; "
        "peak memory with engines and libraries",
    )


if __name__ == "__main__":
    main()
