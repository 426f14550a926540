"""Train the photo set by the commands of ``python -m training``: all cuts and the baseline.

``python -m benchmarks.photos_trainings FOLDER`` pretrains a compressor, fine-tunes it with each cut, trains
the baseline, evaluates them, and writes ``benchmarks/results/photos-trainings.json``. The first fine-tuning
is ended by SIGKILL in its middle and continued by the same command. It takes 15 minutes on one core; the
checkpoints stay in the folder.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from benchmarks.scaffold import machine_words, publish
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.records import Record
from ccr_deploy.reporting.table import Table
from training.loop.saved_state import STATE, saved_step
from training.report.report import collect
from training.report.results import TrainingReport
from training.report.tables import result_tables

CUTS = {"layer1": "photos-layer1", "layer2": "photos-layer2", "layer3": "photos-demo"}
SAVE_EVERY = 100
KILLED_AFTER = 400
"""The first fine-tuning is killed when it has saved this step or a later one."""


class PhotosTrainings(Record, frozen=True):
    """The trainings, and where one was killed.

    Attributes:
        schema_version: of this record.
        machine: the machine.
        killed: name of the training that was killed.
        continued_at_step: the step that it continued at.
        report: the results.
    """

    schema_version: int
    machine: MachineState
    killed: str
    continued_at_step: int
    report: TrainingReport


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Train everything in FOLDER, and write the results beside this script."""
    if folder.exists():
        raise click.ClickException(f"{folder}: exists: give a new folder")
    machine = machine_state()
    compressor = folder / "pretrained" / "compressor.pt"
    _run("pretrain", "--recipe", "photos-demo", "--output", compressor.parent)
    start = ("--encoder-from", compressor)
    killed, continued_at = "layer1", 0
    for cut, recipe in CUTS.items():
        arguments = ("finetune", "--recipe", recipe, *start, "--output", folder / cut)
        if cut == killed:
            continued_at = _killed(folder / cut / STATE, *arguments)
        _run(*arguments)
    _run("baseline", "--recipe", "photos-demo", "--compressor", compressor, "--output", folder / "baseline")
    folders = [folder / name for name in (*CUTS, "baseline")]
    _run("evaluate", "--recipe", "photos-demo", "--output", folder / "report", *folders)
    result = PhotosTrainings(1, machine, killed, continued_at, collect(folders))
    publish("photos-trainings", result, *photos_tables(result))


def photos_tables(result: PhotosTrainings) -> list[Table]:
    """Return the tables of a report: accuracy and size, the paper's beside them, compute cost."""
    tables = result_tables(result.report)
    note = f"{result.killed} was ended by SIGKILL and continued at step {result.continued_at_step}"
    first = tables[0]
    return [
        Table(
            first.title, first.columns, first.rows, f"{first.note}; {note}; {machine_words(result.machine)}"
        ),
        *tables[1:],
    ]


def _command(*arguments: object) -> list[str]:
    options = [] if arguments[0] == "evaluate" else ["--threads", "1", "--save-every", str(SAVE_EVERY)]
    return [sys.executable, "-m", "training", *map(str, arguments), *options]


def _run(*arguments: object) -> None:
    subprocess.run(_command(*arguments), check=True)


def _killed(state: Path, *arguments: object) -> int:
    """Start a training, and kill it when it has saved enough steps; return the saved step."""
    with subprocess.Popen(_command(*arguments)) as process:
        while process.poll() is None and saved_step(state) < KILLED_AFTER:
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    if not (step := saved_step(state)):
        raise click.ClickException(f"{state}: the training ended before it was killed")
    return step


if __name__ == "__main__":
    main()
