"""Tables of scenarios and of a soak."""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from ccr_deploy.reporting.table import Table, interval_text, number, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ccr_deploy.benchmarking.results import AnswerCheck, GpuState
    from ccr_deploy.benchmarking.scenario_results import (
        Compared,
        Drift,
        EarlyStopping,
        EngineRun,
        Latencies,
        PacedComparison,
        ScenarioResult,
        SoakInterval,
        SoakResult,
    )

SOAK_ROWS = 5
_DRIFT_COLUMNS = ("quantity", "change", "95 % interval", "limit", "verdict")


def scenario_tables(result: ScenarioResult) -> list[Table]:
    """Return tables of the latencies, of what they say, and of LoadGen's summary if it issued the queries."""
    columns: list[tuple[str, Callable[[tuple[str, Latencies]], str]]] = [
        ("load", lambda row: row[0]),
        ("p50 ms", lambda row: number(row[1].p50_ms, 2)),
        ("p90 ms", lambda row: number(row[1].p90_ms, 2)),
        ("p95 ms", lambda row: number(row[1].p95_ms, 2)),
        ("p97 ms", lambda row: number(row[1].p97_ms, 2)),
        ("p99 ms", lambda row: number(row[1].p99_ms, 2)),
        ("p99.9 ms", lambda row: number(row[1].p99_9_ms, 2)),
        ("max ms", lambda row: number(row[1].max_ms, 2)),
    ]
    latencies = Table.of(
        f"Scenario {result.scenario}: {_what(result)}",
        _loads(result),
        columns,
        note=f"issued by {result.issued_by}; on {_device(result)}",
        warning="; ".join(_warnings(result)),
    )
    verdicts = Table("What the run shows", ("quantity", "result"), tuple(_verdicts(result)))
    return [latencies, verdicts, *_loadgen_table(result)]


def _what(result: EngineRun) -> str:
    precisions = " + ".join(dict.fromkeys(result.precisions))
    threads = "1 thread" if result.threads == 1 else f"{result.threads} threads"
    return f"{result.subject}, {result.target} {precisions}, batch {result.batch}, {threads}"


def _loads(result: ScenarioResult) -> list[tuple[str, Latencies]]:
    """Return the rows: how the queries came, and their latencies."""
    settings = result.settings
    rate = f"{settings.rate_per_second:g}" if settings.rate_per_second else ""
    name = {
        "single-stream": "one query after the other",
        "multi-stream": f"queries of {settings.samples_per_query} samples",
        "server": f"{rate} queries/s, Poisson",
        "offline": "all samples at once",
        "paced": f"{rate} frames/s",
    }[result.scenario]
    rows = [(name, result.latencies)]
    return rows if result.paced is None else [("without pauses", result.paced.steady), *rows]


def _device(result: EngineRun) -> str:
    return result.machine.gpu or result.machine.processor


def _verdicts(result: ScenarioResult) -> Iterator[tuple[str, str]]:
    """Yield what the run shows: a name and a line each."""
    queries = "1 query" if result.queries == 1 else f"{result.queries} queries"
    counts = f"{result.samples} samples in {queries}, {result.duration_seconds:.1f} s"
    yield "throughput", f"{significant(result.samples_per_second)} samples/s: {counts}"
    if result.paced:
        yield "after idling", _paced_line(result.paced)
    if result.early_stopping:
        yield f"p{result.early_stopping.percentile:g}", _early_stopping_line(result.early_stopping)
    if result.answers:
        yield "answers", _answers_text(result.answers)
    if result.over_bound_percent is not None:
        allowed = 100 - (result.settings.target_percentile or 0)
        shares = f"{result.over_bound_percent:.2f} % of the queries are over it, {allowed:g} % may be"
        met = "met" if result.bound_met else "NOT met"
        yield f"bound of {result.settings.latency_bound_ms:g} ms", f"{met}: {shares}"
    yield (
        "to be quoted as MLPerf-like",
        "yes" if result.is_quotable else f"no: {'; '.join(result.not_quotable_reasons)}",
    )


def _answers_text(check: AnswerCheck) -> str:
    """Return how many answers were compared, and for how many images they vary."""
    varying = f"{check.varying_images} of {check.images}" if check.varying_images else "none"
    return f"{check.runs:,} compared with the first ones, images whose answers vary: {varying}"


def _paced_line(paced: PacedComparison) -> str:
    line = (
        f"{paced.ratio:.2f} times the latency without pauses "
        f"(95 % interval {interval_text(paced.ratio_interval, 2)}), in {paced.rounds} interleaved rounds"
    )
    if paced.dropped_frames:
        line += f"; {paced.dropped_frames} frames were dropped, because an earlier one was being processed"
    return line


def _early_stopping_line(rule: EarlyStopping) -> str:
    if rule.estimate_ms is None:
        return f"too few queries to prove anything about it, at least {rule.minimum_queries} are needed"
    return f"at most {rule.estimate_ms:.2f} ms with {100 * rule.confidence:g} % confidence (early stopping)"


def _warnings(result: ScenarioResult) -> Iterator[str]:
    yield from _unreliable(result.unreliable_reasons)
    if result.loadgen and not result.loadgen.agrees:
        wrong = ", ".join(entry.quantity for entry in result.loadgen.compared if not entry.agrees)
        yield f"LoadGen's summary and ours differ: {wrong}"


def _unreliable(reasons: Sequence[str]) -> Iterator[str]:
    if reasons:
        yield f"UNRELIABLE: {'; '.join(reasons)}: measure again on an idle machine"


def _loadgen_table(result: ScenarioResult) -> Iterator[Table]:
    summary = result.loadgen
    if not summary:
        return
    columns: list[tuple[str, Callable[[Compared], str]]] = [
        ("quantity", lambda entry: entry.quantity),
        ("ours", lambda entry: _quantity(entry.ours)),
        ("LoadGen's", lambda entry: _quantity(entry.loadgen)),
        ("difference", lambda entry: f"{entry.difference_percent:+.2f} %"),
        ("agrees", lambda entry: "yes" if entry.agrees else "NO"),
    ]
    verdict = "VALID" if summary.is_valid else f"INVALID ({'; '.join(summary.invalid_reasons)})"
    yield Table.of(
        f"LoadGen {summary.version} and our own clock, same run",
        summary.compared,
        columns,
        note=f"LoadGen's verdict: {verdict}; limits of the comparison: {summary.limit_percent:g} %, "
        f"and for latencies {summary.limit_ms:g} ms if that is more",
    )


def _quantity(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else significant(value, 2)


def soak_tables(result: SoakResult) -> list[Table]:
    """Return a table with a row for each fifth of the soak."""
    intervals = result.intervals
    borders = [part * len(intervals) // SOAK_ROWS for part in range(SOAK_ROWS + 1)]
    parts = [intervals[start:end] for start, end in pairwise(borders) if end > start]
    columns: list[tuple[str, Callable[[Sequence[SoakInterval]], float | None], int]] = [
        ("p50 ms", lambda part: _median(entry.p50_ms for entry in part), 2),
        ("p99 ms", lambda part: _median(entry.p99_ms for entry in part), 2),
        ("max ms", lambda part: max(entry.max_ms for entry in part), 2),
        ("images/s", lambda part: _median(entry.images_per_second for entry in part), 1),
        ("memory MiB", lambda part: _median(entry.memory_mib for entry in part), 1),
        ("GPU MiB", lambda part: _median(entry.device_memory_mib for entry in part), 0),
        ("CPU MHz", lambda part: _median(entry.cpu_clock_mhz for entry in part), 0),
        ("CPU °C", lambda part: _median(entry.cpu_temperature_celsius for entry in part), 0),
        ("CPU W", lambda part: _median(entry.cpu_power_watts for entry in part), 1),
        ("SM MHz", lambda part: _median(gpu.sm_clock_mhz for gpu in _gpus(part)), 0),
        ("GPU °C", lambda part: _median(gpu.temperature_celsius for gpu in _gpus(part)), 0),
        ("GPU W", lambda part: _median(gpu.power_watts for gpu in _gpus(part)), 1),
        ("others' cores", lambda part: _median(entry.other_processes_cores for entry in part), 2),
    ]
    shown = [column for column in columns if any(column[1](part) is not None for part in parts)]
    drifts = {
        "latency": result.latency_drift,
        "throughput": result.throughput_drift,
        "memory": result.memory_drift,
    }
    answers = f"; answers: {_answers_text(result.answers)}" if result.answers else ""
    drifting = [name for name, drift in drifts.items() if drift and drift.verdict == "drifts"]
    series = Table(
        f"Soak of {_minutes(result)}: {_what(result)}",
        ("from", *(name for name, _, _ in shown)),
        tuple(
            (f"{part[0].seconds:.0f} s", *(number(value(part), digits) for _, value, digits in shown))
            for part in parts
        ),
        note=f"{result.runs} runs in {len(intervals)} intervals, medians of intervals; on {_device(result)}"
        f"{answers}",
        warning="; ".join(
            (*_unreliable(result.unreliable_reasons), *(f"{name.upper()} DRIFTS" for name in drifting))
        ),
    )
    verdicts = tuple((name, *_drift_cells(drift)) for name, drift in drifts.items())
    return [series, Table("From the first to the last fifth of the run", _DRIFT_COLUMNS, verdicts)]


def _gpus(part: Sequence[SoakInterval]) -> list[GpuState]:
    return [entry.gpu for entry in part if entry.gpu]


def _median(values: Iterator[float | None]) -> float | None:
    """Return the median of the values that were measured; None if there are none."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _minutes(result: SoakResult) -> str:
    lasted = result.duration_seconds / 60
    ended = f", ended by Ctrl-C after {lasted:.2g}" if result.ended_early else ""
    return f"{result.minutes:g} minutes{ended}"


def _drift_cells(drift: Drift | None) -> tuple[str, str, str, str]:
    """Return the change, its interval, the limit and the verdict."""
    if drift is None:
        return "", "", "", "too few intervals"
    low, high = drift.change_interval.low, drift.change_interval.high
    return (
        f"{drift.change_percent:+.1f} %",
        f"{low:+.1f} to {high:+.1f}",
        f"{drift.limit_percent:g} %",
        drift.verdict.upper() if drift.verdict == "drifts" else drift.verdict,
    )
