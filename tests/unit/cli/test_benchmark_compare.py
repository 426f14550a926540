"""``benchmark --compare``: what it prints, its exit statuses, and wrong arguments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ccr_deploy.core.records import to_json
from tests.support.benchmark_runs import EAGER, ENGINE, MEDIANS, planted_run
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return written(tmp_path / "before.json", planted_run(0))


@pytest.fixture
def slower(tmp_path: Path) -> Path:
    return written(tmp_path / "after.json", planted_run(1, {**MEDIANS, ENGINE: 1.2 * MEDIANS[ENGINE]}))


def written(path: Path, report: object) -> Path:
    path.write_text(to_json(report), encoding="utf-8")
    return path


def test_a_change_is_printed_with_its_control(before: Path, slower: Path) -> None:
    shown = run("benchmark", "--compare", before, slower)
    assert (shown.status, shown.stderr) == (0, "")
    (row,) = [line for line in shown.stdout.splitlines() if f"chain: {ENGINE} (target)" in line]
    assert row.split()[-2:] == ["same", "slower"]
    assert f"B / A of the controls: chain: {EAGER} 0.99" in " ".join(shown.stdout.split())


def test_a_regression_over_the_limit_has_exit_status_1(before: Path, slower: Path) -> None:
    failed = run("benchmark", "--compare", before, slower, "--max-regression", 5)
    assert failed.status == 1
    assert failed.error_line.startswith(f"ccr-deploy: --max-regression: chain: {ENGINE}: at least 1")
    assert run("benchmark", "--compare", before, slower, "--max-regression", 30).status == 0
    assert run("benchmark", "--compare", slower, before, "--max-regression", 5).status == 0


def test_an_unreliable_run_is_a_warning_and_fails_a_limit(before: Path, tmp_path: Path) -> None:
    unreliable = written(tmp_path / "bad.json", replace(planted_run(1), unreliable_reasons=("busy",)))
    shown = run("benchmark", "--compare", before, unreliable)
    assert shown.status == 0
    assert f"not judged: {unreliable} is unreliable: busy" in " ".join(shown.stdout.split())
    failed = run("benchmark", "--compare", before, unreliable, "--max-regression", 5)
    assert failed.status == 1
    assert failed.error_line == f"ccr-deploy: --max-regression: {unreliable} is unreliable: busy"


def test_json_is_the_whole_comparison(before: Path, slower: Path) -> None:
    shown = run("benchmark", "--compare", before, slower, "--max-regression", 5, "--json")
    content = json.loads(shown.stdout)
    assert content["candidates"][0]["change"] == "slower"
    assert len(content["failures"]) == 1


def test_wrong_arguments_are_named(before: Path) -> None:
    assert "exactly two results" in run("benchmark", "--compare", before).stderr
    assert "exactly two results" in run("benchmark", "--compare", before, before, before).stderr
    assert "got 2 bundles, expected one" in run("benchmark", before, before).stderr
    assert "does not accept --max-regression" in run("benchmark", before, "--max-regression", 5).stderr
    assert "--compare does not accept --rounds" in run("benchmark", "--compare", before, "--rounds", 5).stderr


def test_a_damaged_file_has_exit_status_3(before: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{", encoding="utf-8")
    failed = run("benchmark", "--compare", before, damaged, "--max-regression", 5)
    assert failed.status == 3
    assert failed.error_line.startswith(f"ccr-deploy: error: {damaged}: not JSON, perhaps truncated")
