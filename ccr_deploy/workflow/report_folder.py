"""The report folder: each command saves its JSON, then the report is rendered from all results.

::

    folder/
      verify.json       benchmark.json       as the commands' --json
      scenario-NAME.json   soak.json   table1.json       of the modes of benchmark
      report.md         report.html          of all results
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

from ccr_deploy.benchmarking.results import BenchmarkReport
from ccr_deploy.benchmarking.scenario_results import SCENARIOS, ScenarioResult, SoakResult
from ccr_deploy.benchmarking.table1_results import Table1
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.core.records import convert, to_json
from ccr_deploy.core.untrusted import parse_json, read_bytes, reading
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.reporting.results import Results
from ccr_deploy.verification.results import VerificationReport

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.reporting.table import Table

TITLE = "ccr-deploy report"
MAX_REPORT_BYTES = 64 << 20
BundleResult: TypeAlias = VerificationReport | BenchmarkReport | ScenarioResult | SoakResult
Result: TypeAlias = BundleResult | Table1
_KINDS: dict[str, type[Result]] = {
    "verify.json": VerificationReport,
    "benchmark.json": BenchmarkReport,
    **{f"scenario-{name}.json": ScenarioResult for name in SCENARIOS},
    "soak.json": SoakResult,
    "table1.json": Table1,
}
"""The files of results, and what they hold."""
_MARKS = {
    **dict.fromkeys(_KINDS, b'"created_by": "ccr-deploy '),
    **dict.fromkeys(("report.md", "report.html"), TITLE.encode()),
}
"""Bytes at the start of each file that ccr-deploy writes; other files are not overwritten."""
_HEAD_BYTES = 4096
_Kind = TypeVar("_Kind")
_BundleResult = TypeVar("_BundleResult", VerificationReport, BenchmarkReport, ScenarioResult, SoakResult)


def check_report_folder(folder: Path) -> None:
    """Raise WrongUsageError if a report in this folder would overwrite a file of another program."""
    for name, mark in _MARKS.items():
        path = folder / name
        if path.exists() and not (path.is_file() and mark in path.read_bytes()[:_HEAD_BYTES]):
            raise WrongUsageError(
                f"{folder}: contains a {name} that ccr-deploy did not write: choose another folder"
            )


def add_to_folder(folder: Path, report: Result) -> Table | None:
    """Save a result in the folder and render the report; return the summary of `verify` and `benchmark`.

    Results of another bundle or target in the folder are ignored. The summary is None if the folder has only
    one of the two.

    Raises:
        WrongUsageError: if the folder contains a file of another program with the name of a report file.
        MissingExtraError: if matplotlib or jinja2 is not installed.
        CcrDeployError: if the folder cannot be written, or contains a damaged result.
    """
    from ccr_deploy.reporting.all_tables import all_tables
    from ccr_deploy.reporting.html import html
    from ccr_deploy.reporting.markdown import markdown
    from ccr_deploy.reporting.tables import summary_table

    try:
        check_report_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _file_name(report), f"{to_json(report, nan=True)}\n".encode())
        results = _read_results(folder, report)
        page = markdown(TITLE, all_tables(results), results.warnings)
        write_atomically(folder / "report.md", page.encode())
        write_atomically(folder / "report.html", html(TITLE, results).encode())
    except OSError as error:
        raise CcrDeployError(f"{folder}: cannot write the report ({error.strerror or error})") from error
    if results.verification and results.benchmark:
        return summary_table(results.verification, results.benchmark)
    return None


def _file_name(result: Result) -> str:
    if isinstance(result, ScenarioResult):
        return f"scenario-{result.scenario}.json"
    return next(name for name, kind in _KINDS.items() if isinstance(result, kind))


def _read_results(folder: Path, newest: Result) -> Results:
    """Return the results in the folder that are of the same bundle and target as the newest one."""
    scenarios = [_read(folder, f"scenario-{name}.json", ScenarioResult) for name in SCENARIOS]
    verification = _read(folder, "verify.json", VerificationReport)
    benchmark = _read(folder, "benchmark.json", BenchmarkReport)
    soak = _read(folder, "soak.json", SoakResult)
    table1 = _read(folder, "table1.json", Table1)
    of_bundle = [verification, benchmark, soak, *scenarios]
    # Table 1 is of no bundle: the others are then those of the first one on its target.
    first = next(
        (
            result
            for result in (newest, *of_bundle)
            if result and not isinstance(result, Table1) and result.target == newest.target
        ),
        None,
    )

    def same(result: _BundleResult | None) -> _BundleResult | None:
        return result if result and first and _origin(result) == _origin(first) else None

    return Results(
        verification=same(verification),
        benchmark=same(benchmark),
        scenarios=tuple(result for result in map(same, scenarios) if result),
        soak=same(soak),
        table1=table1 if table1 and table1.target == newest.target else None,
    )


def _origin(result: BundleResult) -> tuple[object, ...]:
    return result.contract_id, result.weights_sha256, result.trained_iterations, result.target


def _read(folder: Path, name: str, kind: type[_Kind]) -> _Kind | None:
    path = folder / name
    if not path.exists():
        return None
    try:
        with reading(path, CcrDeployError, ": remove it"):
            text = read_bytes(path, MAX_REPORT_BYTES)
        return convert(kind, parse_json(text), nan=True)
    except ValueError as error:  # a FieldError is one
        raise CcrDeployError(f"{path}: not a report of this version ({error}): remove it") from error
