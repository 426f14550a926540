"""A report folder that results are added to as by the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.workflow.report_folder import render_report, save_result

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.reporting.table import Table
    from ccr_deploy.workflow.report_folder import Result


def add_to_folder(folder: Path, result: Result) -> Table | None:
    """Save a result in the folder and render the report; return the summary."""
    save_result(folder, result)
    return render_report(folder, result)
