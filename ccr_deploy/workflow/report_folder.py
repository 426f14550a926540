"""The report folder: each command saves its JSON, then the report is rendered from all results.

::

    folder/
      verify.json       benchmark.json                   as the commands' --json
      scenario-NAME.json   soak.json   table1.json       as the JSON of the modes of benchmark
      report.md         report.html                      of all results
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

from ccr_deploy.benchmarking.results import BenchmarkReport
from ccr_deploy.benchmarking.scenario_results import ScenarioResult, SoakResult
from ccr_deploy.benchmarking.table1_results import Table1
from ccr_deploy.core.atomic import write_atomically, writing
from ccr_deploy.core.records import convert, to_json
from ccr_deploy.core.scenarios import SCENARIOS
from ccr_deploy.core.untrusted import (
    MAX_RESULT_BYTES,
    MAX_RESULT_VALUES,
    open_regular,
    parse_json,
    read_bytes,
    reading,
)
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.reporting.results import Results
from ccr_deploy.verification.results import VerificationReport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ccr_deploy.reporting.table import Table

TITLE = "ccr-deploy report"
BundleResult: TypeAlias = VerificationReport | BenchmarkReport | ScenarioResult | SoakResult
Result: TypeAlias = BundleResult | Table1
_FILES: dict[type, str] = {
    VerificationReport: "verify.json",
    BenchmarkReport: "benchmark.json",
    ScenarioResult: "scenario-{}.json",
    SoakResult: "soak.json",
    Table1: "table1.json",
}
_MARKS = {
    **dict.fromkeys(
        (pattern.format(name) for pattern in _FILES.values() for name in SCENARIOS),
        b'"created_by": "ccr-deploy ',
    ),
    **dict.fromkeys(("report.md", "report.html"), TITLE.encode()),
}
"""Bytes at the start of each file that ccr-deploy writes; other files are not overwritten."""
_HEAD_BYTES = 4096
_Kind = TypeVar("_Kind", bound=Result)
_BundleResult = TypeVar("_BundleResult", bound=BundleResult)


def check_report_folder(folder: Path) -> None:
    """Raise WrongUsageError if a report in this folder would overwrite a file of another program."""
    check_own_files(folder, _MARKS)


def check_own_files(folder: Path, marks: Mapping[str, bytes]) -> None:
    """Raise WrongUsageError if the folder has a file of another program under the name of one to be written.

    Args:
        folder: the folder.
        marks: by the file's name, bytes at the start of each file that this program writes.
    """
    for name, mark in marks.items():
        path = folder / name
        if path.exists() and not (path.is_file() and mark in _head(path)):
            raise WrongUsageError(
                f"{folder}: contains a {name} that ccr-deploy did not write: choose another folder"
            )


def _head(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(_HEAD_BYTES)


def save_result(folder: Path, result: Result) -> Path:
    """Save a result as JSON in the folder, which is created; return its file.

    Raises:
        WrongUsageError: if the folder contains a file of another program with the name of a report file.
        CcrDeployError: if the file cannot be written.
    """
    name = result.scenario if isinstance(result, ScenarioResult) else ""
    path = folder / _FILES[type(result)].format(name)
    with writing(folder, CcrDeployError, "the report "):
        check_report_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{to_json(result, nan=True)}\n".encode())
    return path


def render_report(folder: Path, newest: Result) -> Table | None:
    """Render the report on the results in the folder; return the summary of `verify` and `benchmark`.

    Results of another bundle or target than the newest result's are ignored. The summary is None if the
    folder has only one of the two.

    Raises:
        MissingExtraError: if matplotlib or jinja2 is not installed.
        CcrDeployError: if the folder cannot be written, or contains a damaged result.
    """
    from ccr_deploy.reporting.all_tables import all_tables
    from ccr_deploy.reporting.evidence import joined_table
    from ccr_deploy.reporting.html import html
    from ccr_deploy.reporting.markdown import markdown

    results = _read_results(folder, newest)
    text = markdown(TITLE, all_tables(results), results.warnings)
    page = html(TITLE, results)
    with writing(folder, CcrDeployError, "the report "):
        write_atomically(folder / "report.md", text.encode())
        write_atomically(folder / "report.html", page.encode())
    if results.verification and results.benchmark:
        return joined_table(results.verification, results.benchmark)
    return None


def _read_results(folder: Path, newest: Result) -> Results:
    """Return the results in the folder that are of the same bundle and target as the newest one."""
    verification = _read(folder, VerificationReport)
    benchmark = _read(folder, BenchmarkReport)
    scenarios = [_read(folder, ScenarioResult, name) for name in SCENARIOS]
    soak, table1 = _read(folder, SoakResult), _read(folder, Table1)
    # Table 1 is of no bundle: the others are then those of the first one on its target.
    of_bundle = [newest, verification, benchmark, *scenarios, soak]
    first = next(
        (
            result
            for result in of_bundle
            if result and not isinstance(result, Table1) and result.target == newest.target
        ),
        None,
    )

    def same(result: _BundleResult | None) -> _BundleResult | None:
        return result if result and first and _origin(result) == _origin(first) else None

    return Results(
        verification=same(verification),
        benchmark=same(benchmark),
        scenarios=tuple(filter(None, map(same, scenarios))),
        soak=same(soak),
        table1=table1 if table1 and table1.target == newest.target else None,
    )


def _origin(result: BundleResult) -> tuple[object, ...]:
    return result.contract_id, result.weights_sha256, result.trained_iterations, result.target


def _read(folder: Path, kind: type[_Kind], name: str = "") -> _Kind | None:
    path = folder / _FILES[kind].format(name)
    if not path.exists():
        return None
    try:
        with reading(path, CcrDeployError, ": remove it"):
            text = read_bytes(path, MAX_RESULT_BYTES)
        return convert(kind, parse_json(text, MAX_RESULT_VALUES), nan=True)
    except ValueError as error:  # a FieldError is one
        raise CcrDeployError(f"{path}: not a report of this version ({error}): remove it") from error
