"""The report on one or several trainings, from the results in their run folders.

::

    run/
      checkpoint.pt      the checkpoint
      evaluation.json    accuracy, payload, compute cost and latency for each T
      restoration.json   quality of restored images for each iteration
      restored.png       restored images for each iteration
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from ccr_deploy import CREATED_BY
from ccr_deploy.core.atomic import write_atomically, writing
from ccr_deploy.core.records import to_json
from ccr_deploy.core.untrusted import MAX_RESULT_BYTES, read_bytes, reading
from ccr_deploy.errors import CcrDeployError, ImageError, WrongUsageError
from ccr_deploy.models.checkpoint import load_checkpoint, weights_digest
from ccr_deploy.reporting.markdown import markdown
from ccr_deploy.reporting.section import Section, ShownImage
from ccr_deploy.reporting.table import interval_text
from ccr_deploy.reporting.verdict import Figure
from ccr_deploy.workflow.report_folder import check_own_files
from training.evaluation.results import (
    CHECKPOINT_FILE,
    EVALUATION_FILE,
    GRID_FILE,
    RESTORATION_FILE,
    Evaluation,
    Restoration,
    read_result,
)
from training.report.results import RunResults, TrainingReport
from training.report.tables import report_tables, restoration_table, result_tables

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.evaluation.comparison import Comparison
    from training.evaluation.results import IterationAccuracy

TITLE = "Training report"
_MARKS = {
    "report.json": b'"created_by": "ccr-deploy ',
    "report.md": TITLE.encode(),
    "report.html": TITLE.encode(),
}


def write_report(
    output: Path, folders: Sequence[Path], comparisons: Sequence[Comparison] = ()
) -> TrainingReport:
    """Write ``report.json``, ``report.md`` and ``report.html`` into a folder, which is created.

    Args:
        output: the folder to write to.
        folders: the run folders, in the order of the rows.
        comparisons: differences of their accuracies.

    Raises:
        WrongUsageError: if a run folder has no results, or the output folder contains a report of another
            program.
        MissingExtraError: if jinja2 is not installed.
        CcrDeployError: if a result cannot be read, or the folder cannot be written.
    """
    from ccr_deploy.reporting.html import page

    report = collect(folders, comparisons)
    files = {
        "report.json": f"{to_json(report)}\n",
        "report.md": markdown(TITLE, report_tables(report), report.warnings),
        "report.html": page(
            TITLE,
            [
                *(Section(table.title, table=table) for table in result_tables(report)),
                *_restorations(report, folders),
            ],
            figures=_figures(report),
            warnings=report.warnings,
        ),
    }
    with writing(output, CcrDeployError, "the report "):
        check_own_files(output, _MARKS)
        output.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_atomically(output / name, text.encode())
    return report


def collect(folders: Sequence[Path], comparisons: Sequence[Comparison] = ()) -> TrainingReport:
    """Read the results in run folders.

    Args:
        folders: the run folders.
        comparisons: differences of their accuracies.

    Raises:
        WrongUsageError: if a folder has no results.
        CcrDeployError: if a result cannot be read.
    """
    runs = tuple(_read_run(folder) for folder in folders)
    return TrainingReport(
        created_by=CREATED_BY,
        runs=runs,
        comparisons=tuple(comparisons),
        warnings=tuple(
            f"{folder / EVALUATION_FILE}: is of another checkpoint than {CHECKPOINT_FILE}: "
            "run python -m training evaluate again"
            for folder, run in zip(folders, runs, strict=True)
            if run.evaluation and not _is_of(run.evaluation, folder / CHECKPOINT_FILE)
        ),
    )


def _read_run(folder: Path) -> RunResults:
    evaluation, restoration = folder / EVALUATION_FILE, folder / RESTORATION_FILE
    run = RunResults(
        name=folder.resolve().name,
        evaluation=read_result(Evaluation, evaluation) if evaluation.exists() else None,
        restoration=read_result(Restoration, restoration) if restoration.exists() else None,
    )
    if run.evaluation is None and run.restoration is None:
        raise WrongUsageError(
            f"{folder}: has neither {EVALUATION_FILE} nor {RESTORATION_FILE}: run python -m training evaluate"
        )
    return run


def _is_of(evaluation: Evaluation, checkpoint: Path) -> bool:
    """Return whether an evaluation is of this checkpoint; true if the file is not there."""
    if not checkpoint.exists():
        return True
    return weights_digest(load_checkpoint(checkpoint).state_dict) == evaluation.weights_sha256


def _figures(report: TrainingReport) -> list[Figure]:
    return [
        _figure(run.name, evaluation, entry)
        for run in report.runs
        if (evaluation := run.evaluation)
        for entry in evaluation.per_iteration
        if entry.is_trained
    ]


def _figure(run: str, evaluation: Evaluation, entry: IterationAccuracy) -> Figure:
    interval = interval_text(entry.top1_interval_percent, 1)
    size = f"{entry.payload_bytes:,} payload bytes, {evaluation.parameters:,} parameters"
    return Figure(f"top-1: {run}, T={entry.iterations}", f"{entry.top1_percent:.1f} %", f"{interval}; {size}")


def _restorations(report: TrainingReport, folders: Sequence[Path]) -> list[Section]:
    """Return a section for each run that restored images: the quality, and the images if there are some."""
    return [
        Section(table.title, table=table, wide_image=_grid(folder / GRID_FILE))
        for folder, run in zip(folders, report.runs, strict=True)
        if run.restoration and (table := restoration_table(run.name, run.restoration))
    ]


def _grid(path: Path) -> ShownImage | None:
    if not path.exists():
        return None
    with reading(path, ImageError):
        content = read_bytes(path, MAX_RESULT_BYTES)
    heading = "The original, then the restored image after t iterations"
    return ShownImage(GRID_FILE, base64.b64encode(content).decode(), heading, "", ())
