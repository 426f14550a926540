"""Tables of scenarios and of a soak, from synthetic records."""

from __future__ import annotations

import pytest

from ccr_deploy.benchmarking.results import AnswerCheck, GpuState
from ccr_deploy.benchmarking.scenario_results import Compared, PacedComparison
from ccr_deploy.benchmarking.scenarios.early_stopping import early_stopping
from ccr_deploy.benchmarking.scenarios.statistics import latencies
from ccr_deploy.core.metrics import Interval
from ccr_deploy.reporting.scenario_tables import scenario_tables, soak_tables
from tests.support.scenarios import (
    loadgen_summary,
    scenario_result,
    scenario_settings,
    soak_interval,
    soak_result,
)


def test_latencies_and_what_they_show() -> None:
    latency, verdicts = scenario_tables(scenario_result())
    assert latency.title == "Scenario single-stream: chain, cpu int8 + fp32, batch 1, 2 threads"
    assert latency.rows[0][:3] == ("one query after the other", "51.00", "91.00")
    assert latency.note == "issued by ccr-deploy; on Test CPU"
    shown = dict(verdicts.rows)
    assert shown["throughput"] == "19.8 samples/s: 100 samples in 100 queries, 5.5 s"
    assert shown["p90"] == "at most 98.00 ms with 99 % confidence (early stopping)"
    assert shown["to be quoted as MLPerf-like"] == "no: it lasted 5 s of 600"


def test_a_long_run_may_be_quoted() -> None:
    _, verdicts = scenario_tables(scenario_result(is_quotable=True, not_quotable_reasons=()))
    assert dict(verdicts.rows)["to be quoted as MLPerf-like"] == "yes"


def test_too_few_queries_are_said() -> None:
    rule = early_stopping([1.0, 2.0], 90)
    _, verdicts = scenario_tables(scenario_result(early_stopping=rule))
    assert "at least 64 are needed" in dict(verdicts.rows)["p90"]


def test_a_bound_that_is_not_met() -> None:
    result = scenario_result(
        "server",
        settings=scenario_settings(rate_per_second=20.0, latency_bound_ms=50.0, target_percentile=99),
        bound_met=False,
        over_bound_percent=2.5,
    )
    latency, verdicts = scenario_tables(result)
    assert latency.rows[0][0] == "20 queries/s, Poisson"
    assert dict(verdicts.rows)["bound of 50 ms"] == "NOT met: 2.50 % of the queries are over it, 1 % may be"


def test_paced_frames_are_beside_steady_runs() -> None:
    steady = latencies([5.0] * 10)
    paced = PacedComparison(4, steady, (5.0,), 2.5, Interval(2.25, 2.75), 40, dropped_frames=3)
    result = scenario_result("paced", settings=scenario_settings(rate_per_second=10.0), paced=paced)
    latency, verdicts = scenario_tables(result)
    assert [row[0] for row in latency.rows] == ["without pauses", "10 frames/s"]
    line = dict(verdicts.rows)["after idling"]
    assert line.startswith("2.50 times the latency without pauses (95 % interval 2.25 – 2.75), in 4 ")
    assert "3 frames were dropped" in line


def test_loadgens_summary_is_beside_ours() -> None:
    *_, table = scenario_tables(scenario_result(loadgen=loadgen_summary(), issued_by="LoadGen 6.0.17"))
    assert table.rows == (("p50 ms", "10", "10.01", "+0.10 %", "yes"),)
    assert "LoadGen's verdict: VALID" in table.note


def test_a_summary_that_differs_is_a_warning() -> None:
    different = Compared("p90 ms", 10.0, 20.0, 100.0, agrees=False)
    latency, _, table = scenario_tables(
        scenario_result(
            loadgen=loadgen_summary(
                compared=(different,), agrees=False, is_valid=False, invalid_reasons=("x",)
            )
        )
    )
    assert latency.warning == "LoadGen's summary and ours differ: p90 ms"
    assert table.rows[0][-1] == "NO"
    assert "INVALID (x)" in table.note


@pytest.mark.parametrize(("varying", "shown"), [(0, "none"), (3, "3 of 8")])
def test_compared_answers_are_shown(varying: int, shown: str) -> None:
    check = AnswerCheck(1300, 8, varying, None, None, 0.0, None, 0.1, None, passed=True)
    line = f"1,300 compared with the first ones, images whose answers vary: {shown}"
    _, verdicts = scenario_tables(scenario_result(answers=check))
    assert dict(verdicts.rows)["answers"] == line
    series, _ = soak_tables(soak_result([soak_interval(0)], answers=check))
    assert series.note.endswith(f"; answers: {line}")


def test_an_unreliable_run_is_marked() -> None:
    result = scenario_result(unreliable_reasons=("other processes used 1.0 of 2 cores",))
    assert scenario_tables(result)[0].warning.startswith("UNRELIABLE: other processes used 1.0 of 2 cores")


def test_a_soak_has_a_row_for_each_fifth_and_a_verdict() -> None:
    intervals = [soak_interval(index, 10 + index / 100) for index in range(60)]
    series, verdicts = soak_tables(soak_result(intervals))
    assert series.title == "Soak of 10 minutes: chain, cpu int8 + fp32, batch 1, 2 threads"
    assert [row[0] for row in series.rows] == ["0 s", "60 s", "120 s", "180 s", "240 s"]
    assert series.columns == ("from", "p50 ms", "p99 ms", "max ms", "images/s", "memory MiB", "others' cores")
    assert series.warning == "LATENCY DRIFTS; THROUGHPUT DRIFTS"
    cells = {row[0]: row[1:] for row in verdicts.rows}
    assert cells["latency"][0] == "+4.8 %"
    assert cells["latency"][-1] == "DRIFTS"
    assert cells["memory"] == ("+0.0 %", "+0.0 to +0.0", "5 %", "steady")


def test_sensors_that_were_read_have_columns() -> None:
    gpu = GpuState(sm_clock_mhz=1980, memory_clock_mhz=2619, power_watts=312.5, temperature_celsius=61)
    values = {
        "gpu": gpu,
        "device_memory_mib": 512.0,
        "cpu_clock_mhz": 2600.0,
        "cpu_temperature_celsius": 55.0,
    }
    series, _ = soak_tables(soak_result([soak_interval(index, **values) for index in range(12)]))
    row = dict(zip(series.columns, series.rows[0], strict=True))
    assert (row["SM MHz"], row["GPU °C"]) == ("1980", "61")
    assert (row["GPU W"], row["GPU MiB"], row["CPU MHz"], row["CPU °C"]) == ("312.5", "512", "2600", "55")
    assert "CPU W" not in row


def test_a_soak_that_ctrl_c_ended_says_when() -> None:
    intervals = [soak_interval(0)]
    series, verdicts = soak_tables(soak_result(intervals, ended_early=True, duration_seconds=30.0))
    assert series.title.startswith("Soak of 10 minutes, ended by Ctrl-C after 0.5: ")
    assert {row[-1] for row in verdicts.rows} == {"too few intervals"}


def test_intervals_that_do_not_divide_by_five_have_five_rows() -> None:
    series, _ = soak_tables(soak_result([soak_interval(index) for index in range(11)]))
    assert [row[0] for row in series.rows] == ["0 s", "10 s", "20 s", "30 s", "40 s"]
