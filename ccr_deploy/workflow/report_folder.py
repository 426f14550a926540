"""The report folder: each command saves its JSON, then the report is rendered from all results.

::

    folder/
      verify.json       benchmark.json       as the commands' --json
      report.md         report.html          of all results
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
"""Bytes at the start of each file that ccr-deploy writes; other files are not overwritten."""
_HEAD_BYTES = 4096
_Report = TypeVar("_Report", VerificationReport, BenchmarkReport)


def check_report_folder(folder: Path) -> None:
    """Raise WrongUsageError if a report in this folder would overwrite a file of another program."""
    for name, mark in _MARKS.items():
        path = folder / name
        if path.exists() and not (path.is_file() and mark in path.read_bytes()[:_HEAD_BYTES]):
            raise WrongUsageError(
                f"{folder}: contains a {name} that ccr-deploy did not write: choose another folder"
            )


def add_to_folder(folder: Path, report: VerificationReport | BenchmarkReport) -> Table | None:
    """Save a result in the folder and render the report; return its summary if both results are there.

    Results of another bundle or target in the folder are ignored.

    Raises:
        WrongUsageError: if the folder contains a file of another program with the name of a report file.
        MissingExtraError: if matplotlib or jinja2 is not installed.
        CcrDeployError: if the folder cannot be written, or contains a damaged result.
    """
    from ccr_deploy.reporting.evidence import joined_table, why_not_joined
    from ccr_deploy.reporting.html import html
    from ccr_deploy.reporting.markdown import markdown
    from ccr_deploy.reporting.tables import benchmark_tables
    from ccr_deploy.reporting.verification_tables import verification_tables

    try:
        check_report_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = f"{to_json(report, nan=True)}\n"
        write_atomically(folder / _FILES[type(report)], content.encode())
        verification = _read(folder, VerificationReport, report)
        benchmark = _read(folder, BenchmarkReport, report)
        summary = joined_table(verification, benchmark) if verification and benchmark else None
        found = [result for result in (verification, benchmark) if result]
        warnings = dict.fromkeys(line for result in found for line in result.warnings)
        if verification and benchmark and (refusal := why_not_joined(verification, benchmark)):
            warnings[refusal] = None
        tables = [
            *([summary] if summary else []),
            *(verification_tables(verification) if verification else []),
            *(benchmark_tables(benchmark) if benchmark else []),
        ]
        write_atomically(folder / "report.md", markdown(TITLE, tables, tuple(warnings)).encode())
        page = html(TITLE, verification, benchmark, tuple(warnings))
        write_atomically(folder / "report.html", page.encode())
    except OSError as error:
        raise CcrDeployError(f"{folder}: cannot write the report ({error.strerror or error})") from error
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
