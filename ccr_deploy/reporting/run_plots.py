"""Plots of other runs of `benchmark`: a soak over time, and the paper's Table 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ccr_deploy.reporting.svg import ACCENT, BAD, INK, OTHER, Plot, in_report_style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.benchmarking.scenario_results import SoakInterval, SoakResult
    from ccr_deploy.benchmarking.table1_results import Table1, Table1Time

_PANEL_INCHES = 1.15
_FIRST_PANEL_INCHES = 2.4
_ROW_INCHES = 0.5
_AXIS_INCHES = 1.0
_LEGEND_INCHES = 0.15
_RUNTIME_MARKERS = ("o", "s", "^", "D")


class Series(NamedTuple):
    """Values over time; None where the system did not provide one."""

    label: str
    values: Sequence[float | None]


@in_report_style
def soak_plot(soak: SoakResult) -> str:
    """Plot latency over time and, where they were measured, clock, temperature and power.

    Return "" if the soak has fewer than two intervals.
    """
    intervals = soak.intervals
    if len(intervals) < 2:
        return ""
    minutes = [interval.seconds / 60 for interval in intervals]
    others = [series for series in _machine_series(intervals) if any(series.values)]
    height = _FIRST_PANEL_INCHES + _PANEL_INCHES * len(others)
    plot = Plot(height, "Latency, clock and temperature over time", panels=1 + len(others))
    axes = plot.axes
    for label, colour, values in (
        ("p99", OTHER, [interval.p99_ms for interval in intervals]),
        ("p90", ACCENT, [interval.p90_ms for interval in intervals]),
        ("p50", INK, [interval.p50_ms for interval in intervals]),
    ):
        axes.plot(minutes, values, color=colour, linewidth=1.3, label=label)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms")
    axes.grid(axis="y")
    axes.legend(loc="lower right", ncols=3)
    for panel, series in zip(plot.panels[1:], others, strict=True):
        values = [float("nan") if value is None else value for value in series.values]
        panel.plot(minutes, values, color=ACCENT, linewidth=1.3)
        panel.set_ylabel(series.label)
        panel.grid(axis="y")
    plot.panels[-1].set_xlabel("minutes")
    return plot.svg()


def _machine_series(intervals: Sequence[SoakInterval]) -> list[Series]:
    gpus = [interval.gpu for interval in intervals]
    return [
        Series("CPU MHz", [interval.cpu_clock_mhz for interval in intervals]),
        Series("CPU °C", [interval.cpu_temperature_celsius for interval in intervals]),
        Series("CPU W", [interval.cpu_power_watts for interval in intervals]),
        Series("GPU MHz", [gpu.sm_clock_mhz if gpu else None for gpu in gpus]),
        Series("GPU °C", [gpu.temperature_celsius if gpu else None for gpu in gpus]),
        Series("GPU W", [gpu.power_watts if gpu else None for gpu in gpus]),
    ]


@in_report_style
def table1_plot(table: Table1) -> str:
    """Plot how much shorter the time of each model is than the baseline's: the paper's and those measured.

    Return "" for an unreliable run, which has no reductions.
    """
    paper = {
        model.model: model.paper.reduction_percent
        for model in reversed(table.models)
        if model.paper.reduction_percent is not None
    }
    runtimes: dict[str, dict[str, Table1Time]] = {}
    for time in table.times:
        if time.part == "chain" and time.reduction_percent is not None and time.model in paper:
            runtimes.setdefault(f"{time.runtime} {time.precision.upper()}", {})[time.model] = time
    if not runtimes:
        return ""
    height = _ROW_INCHES * len(paper) + _AXIS_INCHES + _LEGEND_INCHES * len(runtimes)
    plot = Plot(height, "Reduction of the time against the baseline, in the paper and here")
    axes = plot.axes
    models = list(paper)
    axes.plot(list(paper.values()), range(len(models)), "d", color=BAD, markersize=9, label="the paper")
    for number, (runtime, times) in enumerate(runtimes.items()):
        shift = 0.16 * (number - (len(runtimes) - 1) / 2)
        heights = [models.index(model) + shift for model in times]
        for position, time in zip(heights, times.values(), strict=True):
            if interval := time.reduction_percent_interval:
                axes.plot([interval.low, interval.high], [position] * 2, color=OTHER, linewidth=3)
        axes.plot(
            [time.reduction_percent or 0.0 for time in times.values()],
            heights,
            _RUNTIME_MARKERS[number % len(_RUNTIME_MARKERS)],
            color=INK if number % 2 else ACCENT,
            markersize=5.5,
            label=runtime,
        )
    axes.set_yticks(range(len(models)), models)
    axes.set_ylim(-0.6, len(models) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("time saved against the baseline, %")
    plot.legend_below(columns=2)
    return plot.svg()
