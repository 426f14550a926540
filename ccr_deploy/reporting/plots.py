"""Plots as SVG, for embedding in HTML."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ccr_deploy.errors import MissingExtraError

try:
    from matplotlib.figure import Figure
except ImportError:
    raise MissingExtraError("matplotlib", "report", "a report with plots") from None

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.results import BenchmarkReport
    from ccr_deploy.verification.results import VerificationReport

_ENGINE, _OTHER = "#2b7a4b", "#9aa5b1"


def speedup_plot(report: BenchmarkReport) -> str:
    """Plot the speed-up of each candidate over PyTorch eager; return "" for an unreliable run."""
    rows = [
        (f"{timing.subject}: {timing.candidate}", timing.is_target, timing.speedup, timing.speedup_interval)
        for timing in reversed(report.timings)
        if timing.speedup is not None and timing.speedup_interval is not None
    ]
    if not rows:
        return ""
    names, are_targets, speedups, intervals = zip(*rows, strict=True)
    figure = Figure(figsize=(8, 0.42 * len(rows) + 1))
    axes = figure.add_subplot()
    errors = [
        [max(0, speedup - interval.low) for speedup, interval in zip(speedups, intervals, strict=True)],
        [max(0, interval.high - speedup) for speedup, interval in zip(speedups, intervals, strict=True)],
    ]
    colours = [_ENGINE if is_target else _OTHER for is_target in are_targets]
    axes.barh(names, speedups, xerr=errors, color=colours)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("speed-up over PyTorch eager (ratio of medians, 95 % interval)")
    return _svg(figure)


def accuracy_plot(report: VerificationReport) -> str:
    """Plot the top-1 accuracy of PyTorch, graph and engine with 95 % intervals."""
    accuracies = list(reversed(report.accuracies))
    figure = Figure(figsize=(8, 0.42 * len(accuracies) + 1))
    axes = figure.add_subplot()
    for row, accuracy in enumerate(accuracies):
        interval = accuracy.top1_interval_percent
        axes.plot([interval.low, interval.high], [row, row], color=_OTHER, linewidth=4, solid_capstyle="butt")
        axes.plot(accuracy.top1_percent, row, "o", color=_ENGINE)
    axes.set_yticks(range(len(accuracies)), [accuracy.chain for accuracy in accuracies])
    axes.set_ylim(-0.6, len(accuracies) - 0.4)
    axes.set_xlabel("top-1 accuracy in % (95 % interval over groups of images)")
    return _svg(figure)


def _svg(figure: Figure) -> str:
    figure.gca().spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
