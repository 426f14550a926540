"""The rules of a scenario: its percentile, and whether a run may be quoted as MLPerf-like.

MLCommons, "MLPerf Inference Rules", section "Scenarios": runs of at least 600 seconds; *single-stream* is
judged by the 90th percentile, *multi-stream* by the 99th of queries of 8 samples, *server* by the 99th and a
latency bound, *offline* by the throughput of at least 24,576 samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.scenario_results import QUOTABLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.benchmarking.scenario_results import EarlyStopping, LoadGenSummary, ScenarioSettings
    from ccr_deploy.core.scenarios import Scenario

TARGET_PERCENTILES: dict[Scenario, float] = {
    "single-stream": 90.0,
    "multi-stream": 99.0,
    "server": 99.0,
    "paced": 90.0,
}
"""The percentile that a scenario is judged by; *offline* has none, *paced* that of a single stream."""
STREAMS = 8
OFFLINE_SAMPLES = 24_576


def not_quotable_reasons(
    scenario: Scenario,
    settings: ScenarioSettings,
    *,
    samples: int,
    duration_seconds: float,
    early_stopping: EarlyStopping | None,
    loadgen: LoadGenSummary | None,
) -> Iterator[str]:
    """Yield the reasons why a run may not be quoted as MLPerf-like; none if it may.

    Args:
        scenario: the scenario.
        settings: how the queries were issued.
        samples: number of samples that were run.
        duration_seconds: time from the first query to the last result, in seconds.
        early_stopping: what the rule says about the run; None without a percentile.
        loadgen: LoadGen's own summary; None if it did not issue the queries.
    """
    if scenario == "paced":
        yield "paced is not a scenario of MLPerf"
    if duration_seconds < QUOTABLE_SECONDS:
        yield f"it lasted {duration_seconds:.0f} s of {QUOTABLE_SECONDS}"
    if scenario == "offline" and samples < OFFLINE_SAMPLES:
        yield f"it has {samples} samples of {OFFLINE_SAMPLES}"
    if scenario == "multi-stream" and settings.samples_per_query != STREAMS:
        yield f"a query has {settings.samples_per_query} samples instead of {STREAMS}"
    if scenario == "server" and settings.latency_bound_ms is None:
        yield "it has no latency bound"
    if early_stopping and not early_stopping.satisfied:
        yield from _unsatisfied(early_stopping)
    if loadgen and not loadgen.is_valid:
        yield f"LoadGen's verdict is INVALID: {', '.join(loadgen.invalid_reasons) or 'it states no reason'}"
    if loadgen and not loadgen.agrees:
        wrong = ", ".join(entry.quantity for entry in loadgen.compared if not entry.agrees)
        yield f"LoadGen's summary and ours differ: {wrong}"


def over_bound_percent(
    settings: ScenarioSettings, early_stopping: EarlyStopping | None, queries: int
) -> float | None:
    """Return the share of queries over the latency bound, in percent; None without a bound.

    Args:
        settings: the latency bound.
        early_stopping: the number of queries over it.
        queries: the number of all queries.
    """
    if settings.latency_bound_ms is None or early_stopping is None or early_stopping.over_bound is None:
        return None
    return 100 * early_stopping.over_bound / queries


def _unsatisfied(rule: EarlyStopping) -> Iterator[str]:
    if rule.more_queries is None:
        yield f"early stopping needs {rule.minimum_queries} queries for p{rule.percentile:g}"
    else:
        yield (
            f"early stopping needs {rule.more_queries} more queries within the latency bound, "
            f"after {rule.over_bound} over it"
        )
