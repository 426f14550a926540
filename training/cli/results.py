"""What a training prints at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import print_lines, stdout_console
from ccr_deploy.core.records import to_json
from ccr_deploy.reporting.terminal import print_table
from training.loop.options import process_number
from training.report.report import collect, write_report
from training.report.tables import report_tables

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.evaluation.comparison import Comparison


def print_result(result: Path | None, *, as_json: bool) -> None:
    """Print what a training gave, and write the report into its folder.

    Args:
        result: the checkpoint or compressor; None in a process that did not write it. Only the first process
            prints.
        as_json: whether to print JSON instead of tables.
    """
    if result is None or process_number():
        return
    folder = result.parent
    write_report(folder, [folder])
    print_report([folder], as_json=as_json)
    if not as_json:
        print_lines(f"{result}", f"  {folder / 'report.html'}")


def print_report(folders: Sequence[Path], comparisons: Sequence[Comparison] = (), *, as_json: bool) -> None:
    """Print the results in run folders.

    Args:
        folders: the run folders.
        comparisons: differences of their accuracies.
        as_json: whether to print JSON instead of tables.
    """
    report = collect(folders, comparisons)
    if as_json:
        click.echo(to_json(report))  # with the answers of all images on one line
        return
    for table in report_tables(report):
        print_table(stdout_console(), table)
