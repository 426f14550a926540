"""The results of a comparison with peers as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.reliability import MAX_INTERVAL_FACTOR, MAX_TAIL_RATIO
from ccr_deploy.benchmarking.statistics import median_ratio_interval
from ccr_deploy.reporting.table import Table, interval_text, significant
from ccr_deploy.reporting.tables import unreliable_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.peers.results import Cell, PeerBenchmark, PeerTiming
    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.core.metrics import Interval

SUBJECTS: tuple[Subject, ...] = ("encoder", "classifier", "chain")
NO_RATIO = "–"


def first_table(result: PeerBenchmark) -> Table:
    """Return the table of the fastest candidates, one row per cell."""
    rows = []
    for timings in cells(result):
        peer, own = _fastest(timings, is_own=False), _fastest(timings, is_own=True)
        if peer is None or own is None:
            continue
        int8 = [timing for timing in timings if timing.group == "ours" and timing.precision == "int8"]
        quickest = min(int8, key=_latency, default=None)
        rows.append(
            (
                str(peer.cell),
                str(len(own.samples_ms)),
                _without_group(peer),
                significant(peer.latency_ms_p50),
                _without_group(own),
                significant(own.latency_ms_p50),
                *_ratio_cells(result, peer, own),
                significant(quickest.latency_ms_p50) if quickest else "",
                _ratio_cells(result, own, quickest)[0] if quickest else "",
            )
        )
    return Table(
        title="The fastest in FP32, and INT8",
        columns=(
            "what runs",
            "rounds",
            "fastest peer, FP32",
            "p50 ms",
            "ours, FP32",
            "p50 ms",
            "times faster",
            "95 % interval",
            "ours, INT8, p50 ms",
            "times FP32",
        ),
        rows=tuple(rows),
        note=_note(
            result,
            "peers: PyTorch eager, torch.compile and plain exports; "
            f"{NO_RATIO}: other work disturbed the row, or its times vary too much",
        ),
        warning=unreliable_line(result.unreliable_reasons) or _disturbed_line(result),
    )


def times_tables(result: PeerBenchmark) -> tuple[Table, ...]:
    """Return the median times of all candidates, one table each for encoder, classifier and chain."""
    return tuple(_times_table(result, subject) for subject in SUBJECTS if _of(result, subject))


def answers_table(result: PeerBenchmark) -> Table:
    """Return how far each candidate's answers are from PyTorch eager's, over all T and batch sizes."""

    def cell(name: str, subject: Subject, worst: Callable[[Iterable[float]], float], text: str) -> str:
        found = [
            timing.flipped_percent if subject == "encoder" else timing.cosine
            for timing in _of(result, subject)
            if timing.candidate == name
        ]
        values = [value for value in found if value is not None]
        return text.format(worst(values)) if values else ""

    names = dict.fromkeys(timing.candidate for timing in result.timings)
    return Table(
        title="Answers compared with PyTorch eager's",
        columns=("candidate", "encoder: bits flipped", "classifier: cosine", "chain: cosine"),
        rows=tuple(
            (
                name,
                cell(name, "encoder", max, "{:.3f} %"),
                cell(name, "classifier", min, "{:.5f}"),
                cell(name, "chain", min, "{:.5f}"),
            )
            for name in names
        ),
        note=f"{result.model}, photos; the worst of all T, batch sizes and images",
    )


def cells(result: PeerBenchmark) -> list[list[PeerTiming]]:
    """Return the timings of each cell, in the order in which they were measured."""
    found: dict[Cell, list[PeerTiming]] = {}
    for timing in result.timings:
        found.setdefault(timing.cell, []).append(timing)
    return list(found.values())


def ratio_of(slower: PeerTiming, faster: PeerTiming) -> tuple[float, Interval]:
    """Return the ratio of two candidates' median times in the same cell, with its 95 % interval."""
    first, second = np.array(slower.samples_ms), np.array(faster.samples_ms)
    return float(np.median(first) / np.median(second)), median_ratio_interval(first, second)


def _ratio_cells(result: PeerBenchmark, slower: PeerTiming, faster: PeerTiming) -> tuple[str, str]:
    """Return a ratio and its interval as text, or dashes if run, cell or times are unreliable."""
    ratio, interval = ratio_of(slower, faster)
    is_wide = interval.high > MAX_INTERVAL_FACTOR * interval.low
    is_disturbed = bool(result.unreliable_reasons) or result.is_disturbed(slower.cell)
    if is_disturbed or is_wide or _has_long_tail(slower) or _has_long_tail(faster):
        return NO_RATIO, NO_RATIO
    return f"{ratio:.2f}", interval_text(interval, 2)


def _disturbed_line(result: PeerBenchmark) -> str:
    """Return which cells other work disturbed, and how; "" if there are none."""
    cells_of: dict[str, list[str]] = {}
    for disturbed in result.disturbed_cells:
        for reason in disturbed.reasons:
            cells_of.setdefault(reason, []).append(str(disturbed.cell))
    parts = [f"{', '.join(cells)} ({reason})" for reason, cells in cells_of.items()]
    return f"no ratios of disturbed rows: {'; '.join(parts)}" if parts else ""


def _has_long_tail(timing: PeerTiming) -> bool:
    return bool(np.percentile(timing.samples_ms, 90) > MAX_TAIL_RATIO * timing.latency_ms_p50)


def _times_table(result: PeerBenchmark, subject: Subject) -> Table:
    own = _of(result, subject)
    columns = list(dict.fromkeys((timing.cell.iterations, timing.cell.batch) for timing in own))
    columns.sort(key=lambda column: (column[1], column[0] or 0))
    times = {
        (timing.candidate, timing.cell.iterations, timing.cell.batch): significant(timing.latency_ms_p50)
        for timing in own
    }
    return Table(
        title=f"{subject.capitalize()}, p50 in ms",
        columns=(
            subject,
            *(f"{f'T={iterations}, ' if iterations else ''}batch {batch}" for iterations, batch in columns),
        ),
        rows=tuple(
            (name, *(times.get((name, *column), "") for column in columns))
            for name in dict.fromkeys(timing.candidate for timing in own)
        ),
        note=_note(result, "p50 in ms of a whole batch"),
    )


def _note(result: PeerBenchmark, what: str) -> str:
    rounds = [len(timing.samples_ms) for timing in result.timings]
    versions = dict.fromkeys(timing.version for timing in result.timings)
    return (
        f"{result.model}; {what}; {min(rounds)} to {max(rounds)} interleaved rounds, each candidate in its "
        f"own process, on {result.measured_on}; libraries {', '.join(versions)}"
    )


def _of(result: PeerBenchmark, subject: Subject) -> list[PeerTiming]:
    return [timing for timing in result.timings if timing.cell.subject == subject]


def _fastest(timings: Sequence[PeerTiming], *, is_own: bool) -> PeerTiming | None:
    """Return the fastest of ours, or of the peers, in FP32; None if all were left out."""
    found = [
        timing for timing in timings if timing.precision == "fp32" and (timing.group == "ours") == is_own
    ]
    return min(found, key=_latency, default=None)


def _latency(timing: PeerTiming) -> float:
    return timing.latency_ms_p50


def _without_group(timing: PeerTiming) -> str:
    return timing.candidate.removeprefix("ours, ").replace("plain export, ", "plain, ")
