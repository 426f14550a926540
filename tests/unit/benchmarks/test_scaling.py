"""Tables, lines and plots of the scaling benchmark, from points that are computed by hand."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks.drawings import standalone
from benchmarks.scaling_results import ExportStep, ExportSteps, Point, ScalingBenchmark
from benchmarks.scaling_tables import (
    growth_table,
    line_through,
    matrix_ms,
    scaling_plots,
    scaling_table,
    steps_table,
)
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.benchmarking.roofline_results import MatrixRate, MemoryBandwidth
from ccr_deploy.core.stages import EXPORTED_SCHEDULES


def point(schedule: str, iterations: int, size: int) -> Point:
    """Nodes: 10 and 20 for each iteration; latency: 1 ms and 2 for each iteration and 100x100 pixels."""
    pixels = size**2
    return Point(
        schedule=schedule,
        iterations=iterations,
        image_size=size,
        nodes=10 + 20 * iterations,
        file_bytes=15_000_000,
        export_cpu_seconds=2 + iterations,
        build_cpu_seconds=0.5,
        latency_ms_p50=1 + 2 * iterations * pixels / 1e4,
        engine_memory_mib=100,
        multiply_accumulates=iterations * pixels * 1000,
        least_bytes=15_000_000,
        most_bytes=100_000_000,
    )


@pytest.fixture
def result() -> ScalingBenchmark:
    shapes = [(1, 100), (2, 100), (8, 100), (2, 200)]
    return ScalingBenchmark(
        schema_version=1,
        model="tiny, untrained",
        image_size=100,
        iterations=2,
        threads=2,
        rounds=3,
        machine=MachineState("CPU", 2, 8.0, "Linux", "3.11", 1.0, None),
        matrix_rate=MatrixRate(precision="fp32", gmac_per_second=50, measured_by="a product"),
        bandwidth=MemoryBandwidth(gigabytes_per_second=10, measured_by="a copy"),
        points=tuple(point(schedule, *shape) for shape in shapes for schedule in EXPORTED_SCHEDULES),
        export=ExportSteps(
            steps=(ExportStep("trace", 3, 6.0), ExportStep("convert", 3, 3.0)),
            cpu_seconds=10.0,
            peak_memory_mib=900,
        ),
    )


def test_a_line_is_found_exactly() -> None:
    assert line_through([(1, 5), (2, 7), (10, 23)]) == pytest.approx((2, 3))


def test_growth_is_by_iterations_and_by_megapixels(result: ScalingBenchmark) -> None:
    rows = {row[:2]: row[2:] for row in growth_table(result).rows}
    assert rows["nodes", "iteration-major"] == ("20", "10", "0", "50")
    assert [float(cell) for cell in rows["latency in ms", "layer-major"]] == pytest.approx([2, 1, 400, 1])


def test_every_point_has_its_row_and_the_time_that_the_matrix_rate_allows(result: ScalingBenchmark) -> None:
    table = scaling_table(result)
    assert len(table.rows) == len(result.points)
    assert matrix_ms(result, point("layer-major", 2, 200)) == pytest.approx(2 * 200**2 * 1000 / 50e9 * 1e3)
    assert "on CPU, 2 cores" in table.note


def test_the_steps_of_an_export_add_up(result: ScalingBenchmark) -> None:
    rows = steps_table(result).rows
    assert rows[-2] == ("everything else", "", "1.0", "10 %")
    assert rows[-1] == ("the whole export", "", "10.0", "100 %")


def test_plots_are_documents_that_can_be_read_alone(result: ScalingBenchmark) -> None:
    plots = scaling_plots(result)
    assert {"scaling-nodes", "scaling-latency", "scaling-latency-size"} <= plots.keys()
    for plot in plots.values():
        document = standalone(plot)
        root = ET.fromstring(document)  # noqa: S314 -- drawn by this project
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "--accent:" in document
