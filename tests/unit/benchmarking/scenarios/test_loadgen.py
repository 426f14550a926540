"""LoadGen's logs, and LoadGen itself on a stand-in for the engines that sleeps in each run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from ccr_deploy.benchmarking.scenarios.agreement import OwnSummary, compare
from ccr_deploy.benchmarking.scenarios.early_stopping import early_stopping
from ccr_deploy.benchmarking.scenarios.loadgen import issue_by_loadgen, parse_log
from ccr_deploy.benchmarking.scenarios.statistics import latencies, milliseconds
from ccr_deploy.benchmarking.scenarios.under_test import Load
from ccr_deploy.errors import EngineError
from tests.support.scenarios import Pausing, failed, scenario_settings

pytest.importorskip("mlperf_loadgen", reason="LoadGen has no wheels for this machine")

LOGS = Path(__file__).parent
SECONDS = 0.02


def log(scenario):
    return parse_log((LOGS / f"loadgen-{scenario}.txt").read_text(), scenario, "6.0.17")


def test_the_log_of_a_single_stream() -> None:
    found = log("single-stream")
    assert (found.is_valid, found.invalid_reasons, found.early_stopping_met) == (True, (), True)
    assert found.latencies.p50_ms < found.latencies.p90_ms <= found.early_stopping_estimate_ms
    assert found.per_second


def test_the_log_of_a_multi_stream_has_latencies_of_queries() -> None:
    found = log("multi-stream")
    assert found.invalid_reasons == ("early stopping is not satisfied",)
    assert found.latencies.min_ms > 8 * 4  # eight samples of 4 ms each
    assert found.early_stopping_estimate_ms is None
    assert found.per_second is None


def test_the_log_of_a_server() -> None:
    found = log("server")
    assert (found.queries, found.per_second) == (190, 93.7271)
    assert found.latencies.p99_ms == pytest.approx(16.570950)
    assert found.early_stopping_met is False


def test_the_log_of_offline_has_no_percentile_to_prove() -> None:
    found = log("offline")
    assert (found.queries, found.is_valid, found.early_stopping_met) == (1, True, None)
    assert found.per_second


def test_a_log_of_an_old_version_is_an_error() -> None:
    text = (LOGS / "loadgen-server.txt").read_text().replace("early_stopping_met", "other")
    with pytest.raises(EngineError) as error:
        parse_log(text, "server", "5.1")
    assert str(error.value) == "LoadGen 5.1 wrote no early_stopping_met: install mlcommons-loadgen>=6"


def measured_by_both(scenario, system, **values):
    """Let LoadGen run a scenario; return our measurement, our summary and the comparison."""
    wanted = scenario_settings(**values)
    with tempfile.TemporaryDirectory() as folder:
        measured = issue_by_loadgen(Load(system, scenario, wanted, SECONDS, failed), Path(folder))
    samples = milliseconds(measured.nanoseconds)
    percentile = wanted.target_percentile
    rule = early_stopping(samples, percentile, wanted.latency_bound_ms) if percentile else None
    own = OwnSummary(
        scenario,
        measured.queries,
        measured.samples,
        measured.duration_nanoseconds / 1e9,
        latencies(samples),
        rule,
    )
    assert measured.loadgen
    return measured, own, compare(measured.loadgen, own)


@pytest.mark.parametrize(
    ("scenario", "batch", "values"),
    [
        ("single-stream", 1, {"min_queries": 70}),
        ("multi-stream", 4, {"samples_per_query": 8, "target_percentile": 99, "min_queries": 30}),
        ("offline", 4, {"samples_per_query": None, "target_percentile": None}),
    ],
)
def test_our_intervals_are_within_its(scenario: str, batch: int, values: dict) -> None:
    system = Pausing(SECONDS, batch)
    measured, own, summary = measured_by_both(scenario, system, min_duration_seconds=1, **values)
    assert summary.queries == measured.queries
    assert sum(map(len, system.runs)) == measured.samples
    # How near they are depends on the machine's load; but each of our order statistics is at most LoadGen's.
    theirs = measured.loadgen.latencies
    for name in ("p50_ms", "p90_ms", "p99_ms", "min_ms", "max_ms", "mean_ms"):
        assert getattr(own.latencies, name) <= getattr(theirs, name) + 0.001, name


def test_both_apply_the_early_stopping_rule_alike() -> None:
    _, own, summary = measured_by_both(
        "single-stream", Pausing(0.001), min_queries=70, min_duration_seconds=0.01
    )
    assert own.early_stopping.satisfied
    assert summary.early_stopping_met is True
    assert own.early_stopping.estimate_ms <= summary.early_stopping_estimate_ms + 0.001


@pytest.mark.parametrize(("bound", "is_met"), [(1e6, True), (0.1, False)])
def test_a_server_meets_a_bound_in_both_or_in_none(bound: float, is_met: bool) -> None:
    system = Pausing(0.002, batch=4)
    measured, own, summary = measured_by_both(
        "server",
        system,
        rate_per_second=100,
        latency_bound_ms=bound,
        target_percentile=99,
        min_duration_seconds=0.5,
    )
    assert measured.queries == measured.samples == own.queries == summary.queries
    assert ("the latency bound is not met" not in summary.invalid_reasons) == is_met
    assert (own.early_stopping.over_bound == 0) == is_met
    assert own.latencies.p50_ms <= measured.loadgen.latencies.p50_ms + 0.001


def test_an_audit_file_in_the_current_folder_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "audit.config").write_text("*.*.min_query_count = 30\n")
    monkeypatch.chdir(tmp_path)
    measured, *_ = measured_by_both("single-stream", Pausing(SECONDS), min_duration_seconds=0.1)
    assert measured.queries < 30
    assert [path.name for path in tmp_path.iterdir()] == ["audit.config"]


def test_a_summary_that_differs_is_found() -> None:
    found = log("single-stream")
    own = OwnSummary(
        scenario="single-stream",
        queries=found.queries,
        samples=found.queries,
        duration_seconds=found.queries / found.per_second,
        latencies=found.latencies,
        early_stopping=None,
    )
    assert compare(found, own).agrees
    slower = latencies([2 * found.latencies.p50_ms] * 3)
    compared = compare(found, OwnSummary(**{**vars(own), "latencies": slower, "queries": 1})).compared
    assert [entry.quantity for entry in compared if not entry.agrees][:2] == ["queries", "p50 ms"]
