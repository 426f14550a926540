"""Tables and plots of ``benchmarks.scaling``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scaffold import machine_words
from ccr_deploy.core.stages import EXPORTED_SCHEDULES
from ccr_deploy.reporting.svg import ACCENT, INK, OTHER, Plot, in_report_style
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.scaling_results import Point, ScalingBenchmark
    from ccr_deploy.core.stages import Schedule

_PLOT_INCHES = 2.6
_COLOURS: dict[Schedule, str] = dict(zip(EXPORTED_SCHEDULES, (ACCENT, OTHER), strict=True))


@dataclass(frozen=True)
class Quantity:
    """A measured quantity: its name, its unit, and how to read it from a point."""

    name: str
    unit: str
    value: Callable[[Point], float]

    @property
    def title(self) -> str:
        """Name and unit."""
        return f"{self.name} in {self.unit}" if self.unit else self.name


NODES = Quantity("nodes", "", lambda point: point.nodes)
FILE = Quantity("file", "MB", lambda point: point.file_bytes / 1e6)
EXPORT = Quantity("export", "CPU s", lambda point: point.export_cpu_seconds)
BUILD = Quantity("build", "CPU s", lambda point: point.build_cpu_seconds)
MEMORY = Quantity("memory", "MiB", lambda point: point.engine_memory_mib)
LATENCY = Quantity("latency", "ms", lambda point: point.latency_ms_p50)
QUANTITIES = (NODES, FILE, EXPORT, BUILD, MEMORY, LATENCY)

FIRST_ITERATIONS = 2
"""The smallest T of the straight lines: at T = 1 there are no hidden convolutions."""
_MEGAPIXELS = 1e6
_ROUNDING = 1e-9


def by_iterations(result: ScalingBenchmark, schedule: Schedule) -> list[Point]:
    """Return the points of a schedule at the preset's image size, by T."""
    return _sorted(result, schedule, lambda point: point.image_size == result.image_size)


def by_size(result: ScalingBenchmark, schedule: Schedule) -> list[Point]:
    """Return the points of a schedule at the preset's T, by image size."""
    return _sorted(result, schedule, lambda point: point.iterations == result.iterations)


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return slope and constant of the straight line with the least squares of relative errors.

    Args:
        points: abscissa and positive ordinate of each point; at least two.
    """
    x, y = np.array(points, np.float64).T
    slope, constant = np.polyfit(x, y, 1, w=1 / y)
    return float(slope), float(constant)


def scaling_table(result: ScalingBenchmark) -> Table:
    """Return a row for each point."""
    return Table.of(
        "Scaling of the encoder",
        result.points,
        [
            ("schedule", lambda point: point.schedule),
            ("T", lambda point: str(point.iterations)),
            ("image", lambda point: f"{point.image_size}x{point.image_size}"),
            ("GMAC", lambda point: f"{point.multiply_accumulates / 1e9:.2f}"),
            *((quantity.title, _cell(quantity)) for quantity in QUANTITIES),
            ("matrix rate allows ms", lambda point: f"{matrix_ms(result, point):.2f}"),
        ],
        note=f"{result.model}, FP32, ONNX Runtime, batch 1, {result.threads} threads; medians of "
        f"{result.rounds} interleaved rounds, on {machine_words(result.machine)}; matrix rate: "
        f"{result.matrix_rate.gmac_per_second:.1f} GMAC/s ({result.matrix_rate.measured_by})",
        warning=_warning(result),
    )


def growth_table(result: ScalingBenchmark) -> Table:
    """Return the straight lines through the quantities, by T and by the number of pixels."""
    rows = [
        (quantity.title, schedule, *_lines(result, quantity, schedule))
        for quantity in QUANTITIES
        for schedule in EXPORTED_SCHEDULES
    ]
    return Table(
        title="Growth",
        columns=("quantity", "schedule", "for each iteration", "constant", "for each megapixel", "constant"),
        rows=tuple(rows),
        note=f"straight lines with the least squares of relative errors; by T "
        f"from {FIRST_ITERATIONS} at {result.image_size}x{result.image_size}, because T = 1 has no hidden "
        f"convolutions; by pixels at T = {result.iterations}; on {machine_words(result.machine)}",
        warning=_warning(result),
    )


def steps_table(result: ScalingBenchmark) -> Table:
    """Return a row for each step of an export."""
    export = result.export
    known = sum(step.cpu_seconds for step in export.steps)
    rows = [(step.step, str(step.calls), step.cpu_seconds) for step in export.steps]
    rows.append(("everything else", "", export.cpu_seconds - known))
    rows.append(("the whole export", "", export.cpu_seconds))
    return Table(
        title="Steps of an export",
        columns=("step", "calls", "CPU s", "share"),
        rows=tuple(
            (name, calls, f"{seconds:.1f}", f"{100 * seconds / export.cpu_seconds:.0f} %")
            for name, calls, seconds in rows
        ),
        note=f"{result.model}, {result.image_size}x{result.image_size}, T = {result.iterations}, three "
        f"schedules and the classifier in FP32 and FP16, without imports; peak memory "
        f"{export.peak_memory_mib:.0f} MiB; on {machine_words(result.machine)}",
    )


def matrix_ms(result: ScalingBenchmark, point: Point) -> float:
    """Return the time that the matrix rate allows for a point, in ms."""
    return point.multiply_accumulates / result.matrix_rate.gmac_per_second / 1e6


def scaling_plots(result: ScalingBenchmark) -> dict[str, str]:
    """Return each plot as an SVG element, by its name."""
    plots = {
        f"scaling-{quantity.name}": _plot(
            result, quantity, by_iterations, "T", lambda point: point.iterations
        )
        for quantity in QUANTITIES
    }
    for quantity in (MEMORY, LATENCY):
        plots[f"scaling-{quantity.name}-size"] = _plot(
            result, quantity, by_size, "height and width in pixels", lambda point: point.image_size
        )
    return plots


@in_report_style
def _plot(
    result: ScalingBenchmark,
    quantity: Quantity,
    points_of: Callable[[ScalingBenchmark, Schedule], list[Point]],
    abscissa: str,
    x: Callable[[Point], float],
) -> str:
    plot = Plot(_PLOT_INCHES, f"{quantity.title} by {abscissa}")
    for schedule in EXPORTED_SCHEDULES:
        points = points_of(result, schedule)
        xs, ys = [x(point) for point in points], [quantity.value(point) for point in points]
        plot.axes.plot(xs, ys, "o-", color=_COLOURS[schedule], markersize=5, label=schedule)
    if quantity is LATENCY:
        points = points_of(result, EXPORTED_SCHEDULES[0])
        bound = [matrix_ms(result, point) for point in points]
        plot.axes.plot([x(point) for point in points], bound, "--", color=INK, label="matrix rate")
    plot.axes.set_ylim(bottom=0)
    plot.axes.set_xlim(left=0)
    plot.axes.grid(axis="y")
    plot.axes.set_xlabel(abscissa)
    plot.axes.set_ylabel(quantity.title)
    plot.axes.legend()
    return plot.svg()


def _sorted(result: ScalingBenchmark, schedule: Schedule, is_chosen: Callable[[Point], bool]) -> list[Point]:
    chosen = [point for point in result.points if point.schedule == schedule and is_chosen(point)]
    return sorted(chosen, key=lambda point: (point.iterations, point.image_size))


def _cell(quantity: Quantity) -> Callable[[Point], str]:
    return lambda point: _number(quantity.value(point))


def _lines(result: ScalingBenchmark, quantity: Quantity, schedule: Schedule) -> tuple[str, ...]:
    iterations = [
        (point.iterations, quantity.value(point))
        for point in by_iterations(result, schedule)
        if point.iterations >= FIRST_ITERATIONS
    ]
    pixels = [
        (point.image_size**2 / _MEGAPIXELS, quantity.value(point)) for point in by_size(result, schedule)
    ]
    return tuple(_number(value) for points in (iterations, pixels) for value in line_through(points))


def _warning(result: ScalingBenchmark) -> str:
    reasons = "; ".join(result.unreliable_reasons)
    return f"latencies are UNRELIABLE: {reasons}" if reasons else ""


def _number(value: float) -> str:
    """Return three digits, or all of a whole number; 0 for what is only rounding."""
    if abs(value) < _ROUNDING:
        return "0"
    return f"{value:.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.3g}"
