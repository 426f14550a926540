"""LoadGen's own summary of a run beside ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.scenario_results import Compared, LoadGenSummary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.benchmarking.scenario_results import EarlyStopping, Latencies
    from ccr_deploy.benchmarking.scenarios.messages import LoadGenLog
    from ccr_deploy.core.scenarios import Scenario

LIMIT_PERCENT = 2.0
LIMIT_MS = 0.1
"""LoadGen's clock includes the calls between its C++ and our Python: some hundredths of a millisecond."""
SERVER_LIMIT_MS = 1.0
"""In *server*, it starts at the scheduled arrival, ours when LoadGen's thread has woken up and called us."""


@dataclass(frozen=True)
class OwnSummary:
    """Our summary of a run, of the quantities that LoadGen states too."""

    scenario: Scenario
    queries: int
    samples: int
    duration_seconds: float
    latencies: Latencies
    early_stopping: EarlyStopping | None


def compare(log: LoadGenLog, ours: OwnSummary) -> LoadGenSummary:
    """Compare LoadGen's summary with ours of the same run."""
    limit_ms = SERVER_LIMIT_MS if ours.scenario == "server" else LIMIT_MS
    compared = (
        Compared("queries", ours.queries, log.queries, *_relative(ours.queries, log.queries, 0)),
        *(
            Compared(name, own, theirs, *_relative(own, theirs, max(limit_ms, own * LIMIT_PERCENT / 100)))
            for name, own, theirs in _latencies(log, ours)
        ),
        *(
            Compared("samples/s", own, theirs, *_relative(own, theirs, own * LIMIT_PERCENT / 100))
            for own, theirs in _rates(log, ours)
        ),
    )
    return LoadGenSummary(
        version=log.version,
        is_valid=log.is_valid,
        invalid_reasons=log.invalid_reasons,
        queries=log.queries,
        compared=compared,
        limit_percent=LIMIT_PERCENT,
        limit_ms=limit_ms,
        agrees=all(entry.agrees for entry in compared),
        early_stopping_met=log.early_stopping_met,
        early_stopping_estimate_ms=log.early_stopping_estimate_ms,
    )


def _latencies(log: LoadGenLog, ours: OwnSummary) -> Iterator[tuple[str, float, float]]:
    """Yield the latencies to compare: those that a single late sample does not decide."""
    yield "p50 ms", ours.latencies.p50_ms, log.latencies.p50_ms
    yield "p90 ms", ours.latencies.p90_ms, log.latencies.p90_ms
    own = ours.early_stopping
    if own and own.estimate_ms is not None and log.early_stopping_estimate_ms is not None:
        name = f"p{own.percentile:g} ms by early stopping"
        yield name, own.estimate_ms, log.early_stopping_estimate_ms


def _rates(log: LoadGenLog, ours: OwnSummary) -> Iterator[tuple[float, float]]:
    if log.per_second is not None and ours.duration_seconds:
        # In *server*, LoadGen does not count the last sample, which marks the end of the time.
        samples = ours.samples - 1 if ours.scenario == "server" else ours.samples
        yield samples / ours.duration_seconds, log.per_second


def _relative(ours: float, theirs: float, limit: float) -> tuple[float, bool]:
    """Return their difference from ours in percent, and whether it is within a limit in the same unit."""
    percent = 100 * (theirs / ours - 1) if ours else 0.0
    return percent, abs(theirs - ours) <= limit
