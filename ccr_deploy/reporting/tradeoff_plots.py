"""Plots of trade-offs: accuracy against latency and size, and work against bytes (roofline)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ccr_deploy.reporting.svg import (
    ACCENT,
    INK,
    OTHER,
    SOFT,
    Plot,
    in_report_style,
    needs_log_axis,
    use_fine_log_axis,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from ccr_deploy.benchmarking.roofline_results import EngineRoofline, Roofline
    from ccr_deploy.reporting.pareto import Pareto, ParetoPoint

_HEIGHT_INCHES = 3.4
_NEAR = (0.12, 0.1)
"""Distances of two points, as shares of the axes, below which their names would overlap."""
_EDGE = 0.15
"""Share of the axis beside its ends in which a name is not centred, since it would be cut."""
_SUBJECT_MARKERS = {"encoder": "o", "classifier": "^", "chain": "s"}


@in_report_style
def pareto_plot(found: Pareto, against: Literal["latency", "size"]) -> str:
    """Plot accuracy against latency or size, with the Pareto front; return "" if no size is known.

    Args:
        found: the points.
        against: the cost on the horizontal axis.
    """
    points = {point: point.latency_ms if against == "latency" else point.megabytes for point in found.points}
    known = {point: cost for point, cost in points.items() if cost}
    if not known:
        return ""
    plot = Plot(_HEIGHT_INCHES, f"Accuracy against {against}, with the Pareto front")
    axes = plot.axes
    front = found.latency_front if against == "latency" else found.size_front
    axes.step(
        [known[point] for point in front],
        [point.accuracy for point in front],
        where="post",
        color=SOFT,
        linewidth=1,
        linestyle="--",
        zorder=1,
    )
    for point, cost in known.items():
        colour = ACCENT if point.is_target else INK
        filled = colour if point.source != "predicted" else "none"
        if point.interval:
            ends = [point.interval.low, point.interval.high]
            axes.plot([cost] * 2, ends, color=OTHER, linewidth=3, solid_capstyle="butt", zorder=2)
        axes.plot(cost, point.accuracy, "o", color=colour, markerfacecolor=filled, markersize=8, zorder=3)
    costs = list(known.values())
    if is_log := needs_log_axis(costs):
        use_fine_log_axis(axes.xaxis, min(costs) / 1.6, 1.6 * max(costs))
    else:
        axes.set_xlim(0, 1.25 * max(costs))
    axes.margins(y=0.25)
    _name_points(axes, known)
    axes.grid(axis="y")
    unit = "p50 of the chain, ms" if against == "latency" else "engine files, MB"
    axes.set_xlabel(unit + (", logarithmic axis" if is_log else ""))
    axes.set_ylabel(found.quantity)
    return plot.svg()


def _name_points(axes: Axes, costs: Mapping[ParetoPoint, float]) -> None:
    """Write the names above the points; points that nearly coincide share one text, above the highest."""
    placed: list[tuple[float, float, ParetoPoint, list[str]]] = []
    for point in sorted(costs, key=lambda point: -point.accuracy):
        x, y = axes.transAxes.inverted().transform(axes.transData.transform((costs[point], point.accuracy)))
        near = [names for other_x, other_y, _, names in placed if _is_near(x - other_x, y - other_y)]
        if near:
            near[0].append(point.name)
        else:
            placed.append((x, y, point, [point.name]))
    for x, _, point, names in placed:
        axes.annotate(
            ", ".join(names),
            (costs[point], point.accuracy),
            xytext=(0, 8),
            textcoords="offset points",
            ha="left" if x < _EDGE else "right" if x > (1 - _EDGE if len(names) == 1 else 0.5) else "center",
            fontsize=10,
        )


def _is_near(horizontal: float, vertical: float) -> bool:
    return abs(horizontal) < _NEAR[0] and abs(vertical) < _NEAR[1]


@in_report_style
def roofline_plot(roofline: Roofline) -> str:
    """Plot the measured limits of the machine, and the rate that each engine reaches below them.

    An engine is a horizontal line: its bytes, and so its arithmetic intensity, depend on what caches and
    fusion save. Return "" if neither engines nor rates were measured.
    """
    engines = [engine for engine in roofline.engines if engine.lowest_intensity > 0]
    if not engines or not roofline.matrix_rates:
        return ""
    plot = Plot(1.2 * _HEIGHT_INCHES, "Roofline: rates of the engines below the limits of the machine")
    axes = plot.axes
    bandwidth = roofline.bandwidth.gigabytes_per_second
    peak = max(rate.gmac_per_second for rate in roofline.matrix_rates)
    low = min(*(engine.lowest_intensity for engine in engines), peak / bandwidth) / 2
    high = 2 * max(*(engine.highest_intensity for engine in engines), peak / bandwidth)
    intensities = np.geomspace(low, high, 100)
    for rate in roofline.matrix_rates:
        reached = np.minimum(intensities * bandwidth, rate.gmac_per_second)
        axes.plot(intensities, reached, color=INK, linewidth=1.2)
        axes.annotate(
            f"{rate.precision.upper()} {rate.gmac_per_second:.0f}",
            (high, rate.gmac_per_second),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            fontsize=10,
        )
    for engine in engines:
        colour = ACCENT if engine.is_target else OTHER
        ends = engine.lowest_intensity, engine.highest_intensity
        rate_reached = _rate(engine)
        axes.plot(ends, [rate_reached] * 2, color=colour, linewidth=1.5)
        axes.plot(
            float(np.sqrt(ends[0] * ends[1])),
            rate_reached,
            _SUBJECT_MARKERS[engine.subject],
            color=colour,
            markersize=7,
            label=engine.subject if engine.is_target else None,
        )
    use_fine_log_axis(axes.xaxis, low, high)
    rates = [_rate(engine) for engine in engines]
    use_fine_log_axis(axes.yaxis, min(*rates, peak) / 2, 2 * peak)
    axes.set_xlabel(f"multiply-accumulates per byte; slope: {bandwidth:.3g} GB/s")
    axes.set_ylabel("10⁹ multiply-accumulates/s")
    axes.legend(loc="lower right")
    return plot.svg()


def _rate(engine: EngineRoofline) -> float:
    """Return the rate that an engine reached, in 10^9 multiply-accumulates per second."""
    return engine.multiply_accumulates / engine.latency_ms_p50 / 1e6
