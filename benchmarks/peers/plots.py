"""The results of a comparison with peers as plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.tables import cells
from ccr_deploy.reporting.svg import ACCENT, INK, OTHER, Plot, in_report_style, needs_log_axis, use_log_axis

if TYPE_CHECKING:
    from benchmarks.peers.results import PeerBenchmark, PeerTiming
    from ccr_deploy.benchmarking.results import Subject

_ROW_INCHES = 0.42
_AXIS_INCHES = 0.8
_USUAL_ITERATIONS = 8


def plots(result: PeerBenchmark) -> dict[str, str]:
    """Return the plots by the end of their file's name: times at T = 8, or at the largest T, and batch 1."""
    found = {}
    for subject in ("encoder", "chain"):
        if timings := plotted_cell(result, subject):
            found[subject] = latency_plot(timings)
    return found


def plotted_cell(result: PeerBenchmark, subject: Subject) -> list[PeerTiming]:
    """Return the timings of the usual T at the smallest batch size.

    Args:
        result: the comparison.
        subject: the stage, or the chain.
    """

    def distance(timings: list[PeerTiming]) -> tuple[int, int]:
        cell = timings[0].cell
        return cell.batch, abs((cell.iterations or 0) - _USUAL_ITERATIONS)

    own = [timings for timings in cells(result) if timings[0].cell.subject == subject]
    return min(own, key=distance, default=[])


@in_report_style
def latency_plot(timings: list[PeerTiming]) -> str:
    """Plot the median time of each candidate of a cell, the fastest first; ours stand out."""
    rows = sorted(timings, key=lambda timing: -timing.latency_ms_p50)
    times = [timing.latency_ms_p50 for timing in rows]
    cell = timings[0].cell
    plot = Plot(_ROW_INCHES * len(rows) + _AXIS_INCHES, f"Median time of each candidate: {cell}")
    axes = plot.axes
    colours = [ACCENT if timing.group == "ours" else OTHER for timing in rows]
    if is_log := needs_log_axis(times):
        use_log_axis(axes.xaxis)
    axes.barh(range(len(rows)), times, height=0.4, color=colours)
    axes.set_yticks([])
    axes.set_ylim(-0.4, len(rows) - 0.25)
    across = axes.get_yaxis_transform()
    for row, (timing, value) in enumerate(zip(rows, times, strict=True)):
        axes.text(0.01, row + 0.24, timing.candidate, transform=across, fontsize=10, va="bottom")
        axes.annotate(
            f"{value:.3g}",
            (value, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            color=INK,
        )
    low, high = axes.get_xlim()
    axes.set_xlim(low, axis_end(low, high, is_log=is_log))
    axes.set_xlabel(f"p50 in ms: {cell}{', logarithmic axis' if is_log else ''}")
    return plot.svg()


def axis_end(low: float, high: float, *, is_log: bool) -> float:
    """Return the end of an axis that has room for a number beside the longest bar.

    Args:
        low: the lower end of the axis.
        high: its upper end without that room.
        is_log: whether the axis is logarithmic.
    """
    return high * (high / low) ** 0.25 if is_log else 1.15 * high
