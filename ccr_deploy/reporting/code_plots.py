"""Plots of flipped bits: their margins, their channels, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from matplotlib.ticker import NullLocator

from ccr_deploy.reporting.svg import (
    ACCENT,
    BAD,
    INK,
    OTHER,
    Plot,
    in_report_style,
    needs_log_axis,
    use_log_axis,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.core.metrics import Interval
    from ccr_deploy.verification.results import CodeParity

_HEIGHT_INCHES = 3.2
_LINEAR_POINTS = 1.0
"""Costs up to this one are on a linear part of the axis, which begins at 0; larger ones are logarithmic."""
_MARKERS = ("s", "^", "D")
_COST_TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)


class ToleranceCurve(NamedTuple):
    """The cost of flips of one kind at each share of flipped bits and, if known, its 95 % interval."""

    label: str
    flipped_percent: Sequence[float]
    costs: Sequence[float]
    intervals: Sequence[Interval | None]


class MeasuredPoint(NamedTuple):
    """The share of bits that one way flips, and what was measured as their cost."""

    label: str
    flipped_percent: float
    cost: float
    interval: Interval | None


@in_report_style
def margins_plot(parity: CodeParity) -> str:
    """Plot the histogram of the margins of all bits, and of the flipped bits, on logarithmic axes."""
    plot = Plot(_HEIGHT_INCHES, "Histogram of the margins of all bits and of flipped bits")
    axes = plot.axes
    positions = range(len(parity.margins))
    for label, colour, counts in (
        ("all bits", OTHER, [bar.bits for bar in parity.margins]),
        ("flipped bits", ACCENT, [bar.flipped_bits for bar in parity.margins]),
    ):
        axes.bar(positions, counts, width=0.92, align="edge", color=colour, label=label)
    use_log_axis(axes.yaxis)
    axes.set_ylim(bottom=0.6)  # a bar of one bit is visible
    # Margins near 0 share the first bar, so the axis is labelled by bar: at each power of ten.
    decades = {
        position: _power_of_ten(bar.low)
        for position, bar in enumerate(parity.margins)
        if _power_of_ten(bar.low)
    }
    axes.set_xticks(list(decades), list(decades.values()))
    axes.set_xlabel("margin: |activation| / standard deviation")
    axes.set_ylabel("bits")
    axes.legend(loc="upper left")
    return plot.svg()


def _power_of_ten(value: float) -> str:
    """Return a power of ten as text, which is short so that labels do not touch; "" for other numbers."""
    mantissa, exponent = f"{value:e}".split("e")
    if float(mantissa) != 1:
        return ""
    return f"{value:g}" if value >= 0.001 else f"1e{int(exponent)}"


@in_report_style
def channels_plot(parity: CodeParity) -> str:
    """Plot the flipped bits of each channel; return "" without flips.

    The axis is logarithmic if one channel would dwarf the others.
    """
    if not any(parity.channel_flips):
        return ""
    plot = Plot(_HEIGHT_INCHES * 0.8, "Flipped bits of each channel of the code")
    axes = plot.axes
    axes.bar(range(len(parity.channel_flips)), parity.channel_flips, width=0.8, color=ACCENT)
    if is_log := needs_log_axis(parity.channel_flips):
        use_log_axis(axes.yaxis)
        axes.set_ylim(bottom=0.6)  # a bar of one bit is visible
    axes.set_xlabel("channel of the code")
    axes.set_ylabel("flipped bits" + (", log" if is_log else ""))
    return plot.svg()


@in_report_style
def tolerance_plot(
    curves: Sequence[ToleranceCurve], points: Sequence[MeasuredPoint], *, cost: str, limit: float | None
) -> str:
    """Plot what flipped bits cost a model, with the costs that were measured on its graphs and engines.

    Args:
        curves: costs of planted flips, one curve for each kind.
        points: measured costs; those without flips are left out, since the axis of shares is logarithmic.
        cost: what the costs are, as label of their axis.
        limit: the largest accepted cost; None if there is none.
    """
    plot = Plot(1.15 * _HEIGHT_INCHES, "Cost of flipped bits")
    axes = plot.axes
    for curve, style, colour in zip(curves, ("-", "--"), (ACCENT, INK), strict=False):
        axes.plot(curve.flipped_percent, curve.costs, style, marker=".", color=colour, label=curve.label)
        known = [
            (share, interval.low, interval.high)
            for share, interval in zip(curve.flipped_percent, curve.intervals, strict=True)
            if interval
        ]
        if known:
            shares, lows, highs = zip(*known, strict=True)
            axes.fill_between(shares, lows, highs, color=colour, alpha=0.15, linewidth=0)
    shown = [point for point in points if point.flipped_percent]
    for point, marker in zip(shown, _MARKERS, strict=False):
        ends = [[0.0], [0.0]]
        if point.interval:
            ends = [[max(0, point.cost - point.interval.low)], [max(0, point.interval.high - point.cost)]]
        axes.errorbar(
            [point.flipped_percent], [point.cost], yerr=ends, fmt=marker, color=BAD, label=point.label
        )
    if limit is not None:
        axes.axhline(limit, color=BAD, linewidth=1, linestyle=":", label=f"limit {limit:g}")
    use_log_axis(axes.xaxis)
    axes.set_yscale("symlog", linthresh=_LINEAR_POINTS)
    axes.set_yticks(_COST_TICKS, [f"{tick:g}" for tick in _COST_TICKS])
    axes.yaxis.set_minor_locator(NullLocator())
    measured = [
        value
        for point in points
        for value in (point.cost, *((point.interval.low, point.interval.high) if point.interval else ()))
    ]
    largest = max(*(max(curve.costs) for curve in curves), *measured, limit or 0, _LINEAR_POINTS)
    axes.set_ylim(min([0, *measured]) - 0.15, 1.5 * largest)
    axes.set_xlabel("flipped bits in %")
    axes.set_ylabel(cost)
    axes.legend(loc="upper left")
    return plot.svg()
