"""The report folder: what is saved, which results are shown together, and what is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ccr_deploy.benchmarking.comparison import read_run
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.workflow.report_folder import check_report_folder, save_result
from tests.support.benchmark_modes import scenario_result, soak_result, table1
from tests.support.benchmark_runs import planted_run
from tests.support.report_folder import add_to_folder

if TYPE_CHECKING:
    from pathlib import Path

MARK = "ccr-deploy 1.0"
BENCHMARK = planted_run(0, created_by=MARK)
SERVER = scenario_result("server", created_by=MARK)
SOAK = soak_result(3, created_by=MARK)
TABLE1 = table1(created_by=MARK)


def headings(folder: Path) -> list[str]:
    return re.findall(r"^## (.*)$", (folder / "report.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_results_of_all_modes_are_saved_and_shown_together(tmp_path: Path) -> None:
    for result in (BENCHMARK, SERVER, scenario_result(created_by=MARK), SOAK, TABLE1):
        add_to_folder(tmp_path, result)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "benchmark.json",
        "report.html",
        "report.md",
        "scenario-server.json",
        "scenario-single-stream.json",
        "soak.json",
        "table1.json",
    ]
    found = " ".join(headings(tmp_path))
    assert all(
        name in found for name in ("Speed", "Scenario server", "Scenario single-stream", "Soak", "Table 1")
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'aria-label="Latency distributions: scenarios"' in page
    assert 'aria-label="Latency, clock and temperature over time"' in page


@pytest.mark.parametrize(
    "other", [{"target": "other"}, {"weights_sha256": "1" * 64}, {"contract_id": "f" * 16}]
)
def test_results_of_another_bundle_or_target_are_ignored(tmp_path: Path, other: dict[str, str]) -> None:
    add_to_folder(tmp_path, replace(SERVER, **other))
    add_to_folder(tmp_path, BENCHMARK)
    assert not any("Scenario" in title for title in headings(tmp_path))
    assert (tmp_path / "scenario-server.json").exists()


def test_table_1_is_shown_with_results_of_the_same_target(tmp_path: Path) -> None:
    add_to_folder(tmp_path, BENCHMARK)
    add_to_folder(tmp_path, TABLE1)
    assert headings(tmp_path)[0].startswith("Speed")
    add_to_folder(tmp_path, replace(TABLE1, target="other"))
    assert not any(title.startswith("Speed") for title in headings(tmp_path))


def test_files_of_another_program_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "scenario-server.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WrongUsageError, match=r"scenario-server\.json that ccr-deploy did not write"):
        check_report_folder(tmp_path)
    with pytest.raises(WrongUsageError):
        add_to_folder(tmp_path, SOAK)
    assert [path.name for path in tmp_path.iterdir()] == ["scenario-server.json"]


def test_a_damaged_result_is_named_and_the_new_one_is_saved(tmp_path: Path) -> None:
    (tmp_path / "soak.json").write_text(f'{{"schema_version": 1, "created_by": "{MARK}"', encoding="utf-8")
    with pytest.raises(CcrDeployError, match=r"soak\.json: not a report of this version .*: remove it"):
        add_to_folder(tmp_path, BENCHMARK)
    assert (tmp_path / "benchmark.json").exists()


def test_all_samples_of_a_long_run_are_read(tmp_path: Path) -> None:
    """More than the values of another JSON file may be: 1,000 rounds of 11 candidates with 200 runs."""
    timings = tuple(replace(timing, samples_ms=((0.5,) * 1_100_000,)) for timing in BENCHMARK.timings[:2])
    save_result(tmp_path, replace(BENCHMARK, timings=timings, rounds=1))
    found = read_run(tmp_path / "benchmark.json")
    assert [len(timing.samples_ms[0]) for timing in found.timings] == [1_100_000] * 2
