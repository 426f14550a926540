"""What commands do with a result: save it, print it, and render the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.cli.common import echo_json, echo_line, stdout_console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.reporting.table import Table
    from ccr_deploy.workflow.report_folder import Result


def check_report(folder: Path | None) -> None:
    """Raise WrongUsageError before a long run if its result could not be saved in the report folder."""
    from ccr_deploy.workflow.report_folder import check_report_folder

    if folder:
        check_report_folder(folder)


def show_result(
    result: Result,
    tables: Sequence[Table],
    report: Path | None,
    *,
    as_json: bool,
    warnings: Sequence[str] = (),
    with_summary: bool = False,
) -> None:
    """Save a result in the report folder if there is one, print it, and render the report.

    Args:
        result: the result, which is printed with `as_json`.
        tables: the result as tables, which are printed without `as_json`.
        report: the report folder, or None.
        as_json: whether to print JSON.
        warnings: lines that are printed before the tables.
        with_summary: whether to print the summary of the report too.
    """
    from ccr_deploy.reporting.terminal import print_table, print_warnings
    from ccr_deploy.workflow.report_folder import render_report, save_result

    # First of all: a pipe that closes must not lose the result of a long run.
    if report:
        save_result(report, result)
    console = stdout_console()
    if as_json:
        echo_json(result)
    else:
        print_warnings(console, warnings)
        for table in tables:
            print_table(console, table)
    summary = render_report(report, result) if report else None
    if summary and not summary.rows:  # the engines are not the same
        echo_line(f"ccr-deploy: warning: {summary.warning}", err=True)
    if report and not as_json:
        if summary and summary.rows and with_summary:
            print_table(console, summary)
        console.print(f"report: {report / 'report.html'}")
