from __future__ import annotations

import pytest

from ccr_deploy.benchmarking.scenario_results import Compared
from ccr_deploy.benchmarking.scenarios.early_stopping import early_stopping
from ccr_deploy.benchmarking.scenarios.quotable import not_quotable_reasons, over_bound_percent
from tests.support.scenarios import loadgen_summary, scenario_settings

ENOUGH = early_stopping([1.0] * 700, 90)
ENOUGH_IN_BOUND = early_stopping([1.0] * 700, 99, bound_ms=2)


def reasons(scenario, *, samples=30_000, seconds=600.0, rule=ENOUGH, loadgen=None, **values) -> list[str]:
    found = not_quotable_reasons(
        scenario,
        scenario_settings(**values),
        samples=samples,
        duration_seconds=seconds,
        early_stopping=rule,
        loadgen=loadgen,
    )
    return list(found)


def test_long_runs_with_enough_queries_may_be_quoted() -> None:
    assert reasons("single-stream") == []
    assert reasons("multi-stream", samples_per_query=8) == []
    assert reasons("server", latency_bound_ms=2.0, rule=ENOUGH_IN_BOUND) == []
    assert reasons("offline", rule=None) == []


@pytest.mark.parametrize(
    ("scenario", "values", "reason"),
    [
        ("single-stream", {"seconds": 599.0}, "it lasted 599 s of 600"),
        ("single-stream", {"rule": early_stopping([1.0], 90)}, "early stopping needs 64 queries for p90"),
        ("multi-stream", {"samples_per_query": 4}, "a query has 4 samples instead of 8"),
        ("offline", {"samples": 24_575, "rule": None}, "it has 24575 samples of 24576"),
        ("server", {}, "it has no latency bound"),
        ("paced", {}, "paced is not a scenario of MLPerf"),
    ],
)
def test_each_rule_is_checked(scenario: str, values: dict, reason: str) -> None:
    assert reasons(scenario, **values) == [reason]


def test_queries_over_the_bound_need_more_queries() -> None:
    rule = early_stopping([1.0] * 698 + [9.0] * 2, 99, bound_ms=2)
    (reason,) = reasons("server", latency_bound_ms=2.0, rule=rule)
    assert reason == "early stopping needs 138 more queries within the latency bound, after 2 over it"


def test_loadgen_must_call_the_run_valid_and_agree_with_our_clock() -> None:
    assert reasons("single-stream", loadgen=loadgen_summary()) == []
    invalid = loadgen_summary(is_valid=False, invalid_reasons=("early stopping is not satisfied",))
    assert reasons("single-stream", loadgen=invalid) == [
        "LoadGen's verdict is INVALID: early stopping is not satisfied"
    ]
    different = Compared("p90 ms", 10.0, 20.0, 100.0, agrees=False)
    differs = loadgen_summary(compared=(different,), agrees=False)
    assert reasons("single-stream", loadgen=differs) == ["LoadGen's summary and ours differ: p90 ms"]


def test_the_share_over_the_bound_is_of_all_queries() -> None:
    rule = early_stopping([1.0] * 98 + [9.0] * 2, 99, bound_ms=2)
    assert over_bound_percent(scenario_settings(latency_bound_ms=2.0), rule, 100) == 2
    assert over_bound_percent(scenario_settings(), rule, 100) is None
