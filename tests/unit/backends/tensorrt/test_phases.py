"""The progress of a build from TensorRT's nested phases."""

from __future__ import annotations

from ccr_deploy.backends.tensorrt.phases import BuildPhases


def test_steps_of_the_outermost_phase_count() -> None:
    phases = BuildPhases()
    phases.start("Building engine", None, 4)
    assert phases.percent == 0
    phases.step("Building engine", 0)
    assert phases.percent == 25


def test_an_inner_phase_is_a_part_of_its_parents_step() -> None:
    phases = BuildPhases()
    phases.start("Building engine", None, 4)
    phases.step("Building engine", 1)
    phases.start("Timing", "Building engine", 2)
    phases.step("Timing", 0)
    assert phases.percent == 62
    phases.start("Reformats", "Timing", 2)
    phases.step("Reformats", 0)
    assert phases.percent == 68


def test_progress_never_decreases_and_ends_at_100() -> None:
    phases = BuildPhases()
    phases.start("Building engine", None, 6)
    seen = []
    for step in range(5):
        phases.start("Optimizing graph", "Building engine", 30)
        for inner in range(30):
            phases.step("Optimizing graph", inner)
            seen.append(phases.percent)
        phases.finish("Optimizing graph")
        phases.step("Building engine", step)
        seen.append(phases.percent)
    assert seen == sorted(seen)
    assert max(seen) < 100
    phases.finish("Building engine")
    assert phases.percent == 100


def test_phases_out_of_order_are_tolerated() -> None:
    phases = BuildPhases()
    phases.step("never started", 3)
    phases.finish("never started")
    phases.start("without steps", None, 0)
    phases.step("without steps", 7)
    phases.finish("without steps")
    phases.finish("without steps")
    assert phases.percent == 100
