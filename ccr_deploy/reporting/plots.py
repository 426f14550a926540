"""Plots of speed-ups and accuracies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.printable import printable
from ccr_deploy.reporting.svg import ACCENT, INK, OTHER, Plot, in_report_style, needs_log_axis, use_log_axis
from ccr_deploy.reporting.verification_tables import way_label

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.results import BenchmarkReport
    from ccr_deploy.verification.results import VerificationReport

_ROW_INCHES = 0.36
_AXIS_INCHES = 0.8
_NAME_LENGTH = 40


@in_report_style
def speedup_plot(report: BenchmarkReport) -> str:
    """Plot the speed-up of each candidate over PyTorch eager; return "" for an unreliable run.

    The axis is logarithmic if one speed-up would dwarf the others. Bars then begin at 1, so that their
    length still shows how much faster or slower a candidate is.
    """
    rows = [
        (
            _shortened(f"{timing.subject}: {timing.candidate}"),
            timing.is_target,
            timing.speedup,
            timing.speedup_interval,
        )
        for timing in reversed(report.timings)
        if timing.speedup is not None and timing.speedup_interval is not None
    ]
    if not rows:
        return ""
    names, are_targets, speedups, intervals = zip(*rows, strict=True)
    plot = Plot(_ROW_INCHES * len(rows) + _AXIS_INCHES, "Speed-up of each candidate over PyTorch eager")
    axes = plot.axes
    is_log = needs_log_axis(speedups)
    start = 1 if is_log else 0
    errors = [
        [max(0, speedup - interval.low) for speedup, interval in zip(speedups, intervals, strict=True)],
        [max(0, interval.high - speedup) for speedup, interval in zip(speedups, intervals, strict=True)],
    ]
    axes.barh(
        range(len(rows)),
        [speedup - start for speedup in speedups],
        left=start,
        height=0.62,
        color=[ACCENT if is_target else OTHER for is_target in are_targets],
    )
    axes.errorbar(speedups, range(len(rows)), xerr=errors, fmt="none", ecolor=INK, elinewidth=1)
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0)
    if is_log:
        use_log_axis(axes.xaxis)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high**1.4 if is_log else 1.15 * high)
    for row, (speedup, interval) in enumerate(zip(speedups, intervals, strict=True)):
        axes.annotate(
            f"{speedup:.2f}",
            (max(speedup, interval.high), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
        )
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_xlabel("speed-up" + (", logarithmic axis" if is_log else ""), loc="right")
    return plot.svg()


def _shortened(name: str) -> str:
    """Return a name that leaves room for the bars."""
    shown = printable(name)
    return shown if len(shown) <= _NAME_LENGTH else f"{shown[: _NAME_LENGTH - 1]}…"


@in_report_style
def accuracy_plot(report: VerificationReport) -> str:
    """Plot the top-1 accuracy of PyTorch, graph and engine with 95 % intervals."""
    accuracies = list(reversed(report.accuracies))
    plot = Plot(_ROW_INCHES * len(accuracies) + _AXIS_INCHES, "Top-1 accuracy with 95 % intervals")
    axes = plot.axes
    for row, accuracy in enumerate(accuracies):
        interval = accuracy.top1_interval_percent
        axes.plot([interval.low, interval.high], [row, row], color=OTHER, linewidth=5, solid_capstyle="butt")
        axes.plot(accuracy.top1_percent, row, "o", color=ACCENT, markersize=8)
        axes.annotate(
            f"{accuracy.top1_percent:.1f}",
            (accuracy.top1_percent, row),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=10,
        )
    axes.set_yticks(range(len(accuracies)), [way_label(accuracy.chain) for accuracy in accuracies])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(accuracies) - 0.2)
    axes.grid(axis="x")
    axes.set_xlabel("top-1 accuracy in %")
    return plot.svg()
