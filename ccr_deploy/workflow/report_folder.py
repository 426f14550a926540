"""A folder of results: each command adds its JSON, and the report is drawn anew from what is there.

::

    folder/
      verify.json       benchmark.json       as the commands' --json
      report.md         report.html          of both
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ccr_deploy.benchmarking.results import BenchmarkReport
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.core.records import convert, to_json
from ccr_deploy.core.untrusted import parse_json, read_bytes, reading
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.verification.results import VerificationReport

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.reporting.table import Table

TITLE = "ccr-deploy report"
MAX_REPORT_BYTES = 64 << 20
_FILES: dict[type, str] = {VerificationReport: "verify.json", BenchmarkReport: "benchmark.json"}
_MARKS = {
    **dict.fromkeys(_FILES.values(), b'"created_by": "ccr-deploy '),
    **dict.fromkeys(("report.md", "report.html"), TITLE.encode()),
}
"""What the beginning of each file holds if it was written here."""
_HEAD_BYTES = 4096
_Report = TypeVar("_Report", VerificationReport, BenchmarkReport)


def check_report_folder(folder: Path) -> None:
    """Raise a WrongUsageError if writing a report into a folder would overwrite a file of somebody else's."""
    for name, mark in _MARKS.items():
        path = folder / name
        if path.exists() and not (path.is_file() and mark in path.read_bytes()[:_HEAD_BYTES]):
            raise WrongUsageError(
                f"{folder}: holds a {name} that was not written here: name another folder for the report"
            )


def add_to_folder(folder: Path, report: VerificationReport | BenchmarkReport) -> Table | None:
    """Writes the report into the folder and draws the common report; returns its summary if it has one.

    Results of another bundle that lie in the folder are left out.

    Raises:
        WrongUsageError: the folder holds a file of somebody else's with a report's name.
        MissingExtraError: matplotlib or jinja2 is not installed.
        CcrDeployError: the folder cannot be written, or holds a damaged result.
    """
    from ccr_deploy.reporting.html import html
    from ccr_deploy.reporting.markdown import markdown
    from ccr_deploy.reporting.tables import benchmark_tables, summary_table, verification_tables

    try:
        check_report_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = f"{to_json(report, nan=True)}\n"
        write_atomically(folder / _FILES[type(report)], content.encode())
        verification = _read(folder, VerificationReport, report)
        benchmark = _read(folder, BenchmarkReport, report)
        summary = summary_table(verification, benchmark) if verification and benchmark else None
        found = [result for result in (verification, benchmark) if result]
        warnings = tuple(dict.fromkeys(line for result in found for line in result.warnings))
        tables = [
            *([summary] if summary else []),
            *(verification_tables(verification) if verification else []),
            *(benchmark_tables(benchmark) if benchmark else []),
        ]
        write_atomically(folder / "report.md", markdown(TITLE, tables, warnings).encode())
        write_atomically(folder / "report.html", html(TITLE, verification, benchmark, warnings).encode())
    except OSError as error:
        raise CcrDeployError(f"{folder}: the report cannot be written ({error.strerror or error})") from error
    return summary


def _read(folder: Path, kind: type[_Report], newest: VerificationReport | BenchmarkReport) -> _Report | None:
    path = folder / _FILES[kind]
    if not path.exists():
        return None
    try:
        with reading(path, CcrDeployError, ": remove it"):
            text = read_bytes(path, MAX_REPORT_BYTES)
        report = convert(kind, parse_json(text), nan=True)
    except ValueError as error:  # a FieldError is one
        raise CcrDeployError(f"{path}: not a report of this version ({error}): remove it") from error

    def origin(result: VerificationReport | BenchmarkReport) -> tuple[object, ...]:
        return result.contract_id, result.weights_sha256, result.trained_iterations, result.target

    return report if origin(report) == origin(newest) else None
