"""Plots of raw latencies: the distribution of each candidate, and the steps of a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ccr_deploy.core.printable import printable
from ccr_deploy.reporting.svg import ACCENT, BAD, INK, OTHER, SOFT, Plot, in_report_style, use_fine_log_axis
from ccr_deploy.reporting.table import significant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from ccr_deploy.benchmarking.stage_results import EndToEnd

_ROW_INCHES = 0.62
_AXIS_INCHES = 0.85
_NAME_LENGTH = 42
_BINS = 120
_HEIGHT = 0.52
"""Height of the highest bar of a row, in rows."""
_TAIL_DOTS = 30
"""Number of the slowest samples that are drawn one by one."""
_LINEAR_RATIO = 3.0
"""Up to this ratio of the largest to the smallest latency, the axis is linear."""
_MARKERS = (("p50", "o"), ("p90", "D"), ("p99", "s"))
_STEP_INCHES = 0.36


class LatencyRow(NamedTuple):
    """The raw samples of one row in ms, in any order, with the percentiles that the report states.

    `bound_ms` is a latency that must not be exceeded, or None.
    """

    name: str
    is_target: bool
    samples_ms: Sequence[float]
    percentiles_ms: tuple[float, float, float]
    bound_ms: float | None = None


@in_report_style
def latency_plot(title: str, rows: Sequence[LatencyRow]) -> str:
    """Plot histograms of raw latencies, one row below the other, with p50, p90 and p99.

    The axis is logarithmic if the latencies differ by more than a factor, so that equal relative spreads
    look equal.

    Args:
        title: what was timed.
        rows: rows from top to bottom, each with at least one sample.
    """
    plot = Plot(_ROW_INCHES * len(rows) + _AXIS_INCHES, f"Latency distributions: {title}")
    axes = plot.axes
    ends = [
        value for row in rows for value in (min(row.samples_ms), max(row.samples_ms), row.bound_ms) if value
    ]
    low, high = 0.98 * min(ends), 1.02 * max(ends)
    is_log = high > _LINEAR_RATIO * low
    edges = (np.geomspace if is_log else np.linspace)(low, high, _BINS + 1)
    for position, row in enumerate(reversed(rows)):
        _draw_row(axes, position, row, edges)
    if is_log:
        use_fine_log_axis(axes.xaxis, low, high)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.18, len(rows))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("ms, logarithmic axis" if is_log else "ms")
    _draw_header(axes, title)
    return plot.svg()


def _draw_row(axes: Axes, position: int, row: LatencyRow, edges: np.ndarray) -> None:
    samples = np.asarray(row.samples_ms)
    colour = ACCENT if row.is_target else OTHER
    counts, _ = np.histogram(samples, edges)
    filled = np.flatnonzero(counts)
    first, last = filled[0], filled[-1] + 1
    heights = position + _HEIGHT * counts[first:last] / counts.max()
    axes.stairs(heights, edges[first : last + 1], baseline=position, fill=True, color=colour)
    axes.axhline(position, color=OTHER, linewidth=0.6, zorder=0)
    tail = np.sort(samples[samples > row.percentiles_ms[-1]])[-_TAIL_DOTS:]
    axes.plot(tail, np.full(len(tail), position), ".", color=colour, markersize=4)
    for value, (_, marker) in zip(row.percentiles_ms, _MARKERS, strict=True):
        axes.plot(value, position, marker, color=INK, markersize=4.5, clip_on=False)
    if row.bound_ms is not None:
        axes.plot([row.bound_ms] * 2, [position - 0.1, position + _HEIGHT], color=BAD, linewidth=1.2)
    shown = " / ".join(significant(value) for value in row.percentiles_ms)
    across = axes.get_yaxis_transform()
    axes.text(0, position + 0.62, _shortened(row.name), transform=across, fontsize=10)
    axes.text(1, position + 0.62, shown, transform=across, fontsize=10, ha="right")


def _draw_header(axes: Axes, title: str) -> None:
    """Write the title, and the legend of the percentiles, above the plot."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_title("p50 ●   p90 ◆   p99 ■   ms", loc="right", fontsize=10, color=SOFT)


def _shortened(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= _NAME_LENGTH else f"{shown[: _NAME_LENGTH - 1]}…"


@in_report_style
def steps_plot(result: EndToEnd) -> str:
    """Plot the median of each step from image file to label, with its interval, and its 99th percentile."""
    rows = [*result.steps, result.sum, result.chain][::-1]
    plot = Plot(_STEP_INCHES * len(rows) + _AXIS_INCHES, "Median time of each step from file to label")
    axes = plot.axes
    for position, row in enumerate(rows):
        colour = OTHER if row.step in {"sum", "chain"} else ACCENT
        axes.barh(position, row.latency_ms_p50, height=0.62, color=colour)
        interval = row.latency_ms_p50_interval
        axes.plot([interval.low, interval.high], [position, position], color=INK, linewidth=1)
        axes.plot(row.latency_ms_p99, position, "s", color=INK, markersize=4.5, clip_on=False)
        axes.annotate(
            significant(row.latency_ms_p50),
            (max(row.latency_ms_p50, row.latency_ms_p99), position),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
        )
    axes.set_yticks(range(len(rows)), [row.step for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.15 * max(max(row.latency_ms_p50, row.latency_ms_p99) for row in rows))
    axes.set_xlabel("ms for one image; bar: p50, ■: p99")
    return plot.svg()
