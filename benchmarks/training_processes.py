"""Compare trainings with one and with two processes: losses and gradients of every step, on a CPU.

``python -m benchmarks.training_processes`` trains the demo's model for 40 steps with batches of 64 images: in
one process, in two processes with 32 images each (Lightning's DDP, gloo), and in one process with two
micro-batches of 32 images. It writes ``benchmarks/results/training-processes.json``.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, get_args

import click
import torch

from benchmarks.scaffold import publish, temporary_folder
from benchmarks.training_gradients import Kind, read_gradients, read_losses, relative_differences
from ccr_deploy.core.records import Record
from ccr_deploy.reporting.svg import ACCENT, BAD, OTHER, Plot, in_report_style
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

STEPS = 40
FIRST = 20
"""Steps of the first half, which the table has apart."""
WHOLE = "one process"
TWO = "two processes"
ACCUMULATED = "one process, micro-batches of 32"
RUNS = {WHOLE: (), TWO: ("--devices", "2"), ACCUMULATED: ("--micro-batch", "32")}
"""The options of every run, by its name."""
COMPARED = ((TWO, WHOLE), (ACCUMULATED, WHOLE), (TWO, ACCUMULATED))
_TITLES = {"pretrain": "pretraining", "finetune": "fine-tuning"}
_STYLES = {WHOLE: (OTHER, "-", 3.5), TWO: (ACCENT, "-", 1.2), ACCUMULATED: (BAD, ":", 1.6)}


class LossCurve(Record, frozen=True):
    """The mean loss of the global batch at every step."""

    training: Kind
    run: str
    losses: tuple[float, ...]


class RunDifference(Record, frozen=True):
    """Differences between two runs at every step.

    `gradients` are those of all parameters together, before clipping: the norm of the difference divided by
    the norm of the second run's. `losses` are relative to the second run's.
    """

    training: Kind
    runs: tuple[str, str]
    gradients: tuple[float, ...]
    losses: tuple[float, ...]


class TrainingProcesses(Record, frozen=True):
    """Curves and differences of pretraining and fine-tuning."""

    schema_version: int
    model: str
    torch: str
    curves: tuple[LossCurve, ...]
    differences: tuple[RunDifference, ...]


@click.command()
def main() -> None:
    """Measure, and write the result beside this script."""
    curves: list[LossCurve] = []
    differences: list[RunDifference] = []
    with temporary_folder() as folder:
        for kind in get_args(Kind):
            runs = {name: _trained(kind, folder / kind / name, options) for name, options in RUNS.items()}
            curves += [LossCurve(kind, name, tuple(losses.tolist())) for name, (losses, _) in runs.items()]
            differences += [_difference(kind, runs, *compared) for compared in COMPARED]
    result = TrainingProcesses(
        schema_version=1,
        model="demo, T=3, batches of 64 images, one thread for each process",
        torch=torch.__version__,
        curves=tuple(curves),
        differences=tuple(differences),
    )
    publish("training-processes", result, processes_table(result))


def _trained(kind: Kind, folder: Path, options: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Return losses and gradients of a run."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.training_gradients", kind, str(folder), *options]
    subprocess.run([*command, "--steps", str(STEPS)], check=True)
    return read_losses(folder), read_gradients(folder)


def _difference(kind: Kind, runs: dict[str, tuple[Tensor, Tensor]], name: str, other: str) -> RunDifference:
    (losses, gradients), (other_losses, other_gradients) = runs[name], runs[other]
    return RunDifference(
        training=kind,
        runs=(name, other),
        gradients=tuple(relative_differences(gradients, other_gradients)),
        losses=tuple(((losses - other_losses).abs() / other_losses).tolist()),
    )


def processes_table(result: TrainingProcesses) -> Table:
    """Return the table: one row for each training and pair of runs."""
    return Table(
        title="Trainings with one and two processes",
        columns=(
            "training",
            "compared",
            f"gradients, {FIRST} steps",
            f"gradients, {STEPS} steps",
            f"loss, {STEPS} steps",
        ),
        rows=tuple(
            (
                _TITLES[entry.training],
                " – ".join(entry.runs),
                _number(max(entry.gradients[:FIRST])),
                _number(max(entry.gradients)),
                _number(max(entry.losses)),
            )
            for entry in result.differences
        ),
        note=f"{result.model}: the largest relative difference at one step, of the gradients of all "
        f"parameters together and of the loss; on a CPU with gloo and PyTorch {result.torch}",
    )


def _number(value: float) -> str:
    return f"{value:.1e}" if value else "0"


@in_report_style
def losses_plot(result: TrainingProcesses) -> str:
    """Draw the losses of all runs at every step: pretraining above fine-tuning."""
    plot = Plot(
        5.0,
        "Loss at every step: in pretraining the curves of one and two processes coincide, in fine-tuning "
        "those of two processes and of micro-batches do",
        panels=2,
    )
    for axes, kind in zip(plot.panels, get_args(Kind), strict=True):
        for curve in result.curves:
            if curve.training == kind:
                colour, line, width = _STYLES[curve.run]
                axes.plot(
                    range(1, len(curve.losses) + 1),
                    curve.losses,
                    color=colour,
                    linestyle=line,
                    linewidth=width,
                    label=curve.run,
                )
        axes.set_ylabel(f"loss of {_TITLES[kind]}")
        axes.grid(axis="y")
    plot.panels[-1].set_xlabel("step")
    plot.legend_below(columns=2)
    return plot.svg()


if __name__ == "__main__":
    main()
