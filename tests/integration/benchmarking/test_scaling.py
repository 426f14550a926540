"""The scaling benchmark on the demo preset, at small sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.scaling import measure_scaling
from benchmarks.scaling_tables import by_iterations, by_size
from ccr_deploy.core.stages import EXPORTED_SCHEDULES

if TYPE_CHECKING:
    from benchmarks.scaling_results import ScalingBenchmark


@pytest.fixture(scope="module")
def result(short_rounds: None) -> ScalingBenchmark:
    return measure_scaling("demo", [(2, 48), (3, 48), (3, 32)], rounds=2)


@pytest.mark.parametrize("schedule", EXPORTED_SCHEDULES)
def test_nodes_grow_with_iterations_but_the_file_keeps_its_weights(
    result: ScalingBenchmark, schedule: str
) -> None:
    two, three = by_iterations(result, schedule)
    assert three.nodes > two.nodes
    assert three.file_bytes < 1.1 * two.file_bytes
    assert three.multiply_accumulates > two.multiply_accumulates


@pytest.mark.parametrize("schedule", EXPORTED_SCHEDULES)
def test_the_image_size_changes_the_work_but_not_the_graph(result: ScalingBenchmark, schedule: str) -> None:
    small, large = by_size(result, schedule)
    assert small.nodes == large.nodes
    assert large.multiply_accumulates / small.multiply_accumulates == pytest.approx((48 / 32) ** 2, rel=0.01)


def test_the_steps_of_an_export_are_measured(result: ScalingBenchmark) -> None:
    steps = {step.step: step for step in result.export.steps}
    graphs = 4  # three schedules and the classifier
    assert {step.calls for name, step in steps.items() if "FP16" in name} == {graphs}
    assert steps["hash and write graphs"].calls == 2 * graphs
    assert 0 < sum(step.cpu_seconds for step in steps.values()) <= result.export.cpu_seconds
