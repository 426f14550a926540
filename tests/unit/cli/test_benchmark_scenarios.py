"""``benchmark --scenario`` and ``--soak``: what the answers' check does to the exit status and the result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.benchmarking.results import AnswerCheck
from ccr_deploy.cli.benchmark_modes import BenchmarkOptions
from tests.support.cli_runner import run
from tests.support.scenarios import scenario_result, soak_interval, soak_result

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cli_runner import Outcome

MODES = [("--scenario", "single-stream"), ("--soak", "1")]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Return a function that runs the command with engines whose answers passed the check or did not."""

    def run_with(answers: AnswerCheck | None, *arguments: str) -> Outcome:
        scenario, soak = scenario_result(answers=answers), soak_result([soak_interval(0)], answers=answers)
        monkeypatch.setattr(BenchmarkOptions, "opened", lambda _: (None, "cpu", None))
        monkeypatch.setattr("ccr_deploy.workflow.scenarios.run_bundle_scenario", lambda *_, **__: scenario)
        monkeypatch.setattr("ccr_deploy.workflow.soak.soak_bundle", lambda *_, **__: soak)
        return run("benchmark", "bundle", *arguments, "--report", tmp_path / "report")

    return run_with


@pytest.mark.parametrize("mode", MODES)
def test_answers_that_change_have_exit_status_1_and_the_result_is_kept(
    mode: tuple[str, str], measured, tmp_path: Path
) -> None:
    wrong = AnswerCheck(64, 8, 8, None, None, 100.0, None, 0.1, None, passed=False)
    shown = measured(wrong, *mode)
    assert shown.status == 1
    assert shown.error_line == (
        "ccr-deploy: chain: cpu: wrong answers while it was timed: 100 % of the bits of an image differ from "
        "its own first ones (limit 0.1 %): run ccr-deploy verify"
    )
    assert "p50 ms" in shown.stdout
    (saved,) = (tmp_path / "report").glob("s*.json")
    assert json.loads(saved.read_text())["answers"]["passed"] is False


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "answers", [None, AnswerCheck(64, 8, 1, None, None, 0.1, None, 0.1, None, passed=True)]
)
def test_other_runs_have_exit_status_0(mode: tuple[str, str], answers: AnswerCheck | None, measured) -> None:
    shown = measured(answers, *mode)
    assert (shown.status, shown.stderr) == (0, "")
