"""What the runner does with any CUDA: tests for a module that has the fixtures `machine` and `runner`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.errors import EngineError
from tests.support.tensorrt_stand_in.machine import DYNAMIC, SIZES, check_equal

if TYPE_CHECKING:
    from ccr_deploy.backends.tensorrt.runner import TensorRtRunner
    from tests.support.tensorrt_stand_in.library import Version
    from tests.support.tensorrt_stand_in.machine import Machine


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 15, 16])
def test_a_batch_is_padded_to_the_smallest_profile(
    machine: Machine, runner: TensorRtRunner, batch: int
) -> None:
    machine.check(runner, batch)
    machine.check(runner, batch)
    assert runner.captured_batch_sizes == {next(size for size, _ in SIZES if size >= batch)}


def test_profiles_may_be_in_any_order(machine: Machine) -> None:
    with machine.load((16, 16), (1, 1), (4, 4)) as runner:
        for size in (1, 3, 16, 21):
            machine.check(runner, size)
        assert runner.captured_batch_sizes == {1, 4, 16}


def test_a_dynamic_profile_runs_every_size_without_padding(machine: Machine) -> None:
    with machine.load(*DYNAMIC) as runner:
        for size in (1, 3, 16, 3, 37):
            machine.check(runner, size)
        assert runner.captured_batch_sizes == {1, 3, 16, 5}


@pytest.mark.parametrize("batch", [17, 32, 35, 64, 100])
def test_a_larger_batch_runs_in_parts(machine: Machine, runner: TensorRtRunner, batch: int) -> None:
    machine.check(runner, batch)
    machine.check(runner, batch)  # as CUDA graphs
    machine.check(runner, 3)


def test_only_the_items_are_copied_not_the_padding(machine: Machine, runner: TensorRtRunner) -> None:
    """Padding rows hold older items: the outputs are right all the same, and theirs are not returned."""
    machine.check(runner, 16)
    feeds = machine.feeds(5)
    found = runner.infer(feeds)
    assert {len(output) for output in found.values()} == {5}
    check_equal(found, feeds)


def test_later_calls_do_not_overwrite_outputs(machine: Machine, runner: TensorRtRunner) -> None:
    feeds = machine.feeds(20)
    found = runner.infer(feeds)
    machine.check(runner, 20)
    check_equal(found, feeds)


@pytest.mark.parametrize("version", ["8.6", "10.3", "11.4", "rtx"])
def test_every_version_s_calls(machine: Machine, version: Version) -> None:
    machine.use_version(version)
    with machine.load() as runner:
        for batch in (1, 3, 40):
            machine.check(runner, batch)
        assert runner.captured_batch_sizes == {1, 4, 16}


@pytest.mark.parametrize("batch", [1, 3, 4, 16, 21, 64])
@pytest.mark.parametrize("offset", [0, 1])
def test_arrays_on_the_gpu(machine: Machine, runner: TensorRtRunner, batch: int, offset: int) -> None:
    feeds = machine.feeds(batch)
    arrays = {name: machine.on_device(array, offset) for name, array in feeds.items()}
    machine.check(runner, 16)  # what a wrong address would read
    check_equal(runner.infer(arrays), feeds)
    check_equal(runner.infer({**feeds, "bias": arrays["bias"]}), feeds)
    check_equal(runner.infer({**feeds, "image": arrays["image"]}), feeds)
    machine.check(runner, batch)
    for array in arrays.values():
        array.release()


@pytest.mark.parametrize(
    "call",
    ["create_execution_context", "set_optimization_profile_async", "set_input_shape", "set_tensor_address"],
)
def test_a_call_that_tensorrt_rejects_is_reported(
    machine: Machine, runner: TensorRtRunner, call: str
) -> None:
    machine.library.rejects.add(call)
    with pytest.raises(EngineError, match=rf"TensorRT .*: {call}: the stand-in rejects it"):
        runner.infer(machine.feeds(4))
    machine.library.rejects.clear()
    machine.check(runner, 4)


def test_a_run_that_tensorrt_rejects_is_reported(machine: Machine, runner: TensorRtRunner) -> None:
    machine.library.rejects.add("execute_async_v3")
    with pytest.raises(EngineError, match="TensorRT cannot run the engine: execute_async_v3"):
        runner.infer(machine.feeds(20))
    machine.library.rejects.clear()
    machine.check(runner, 20)


def test_a_damaged_plan_is_refused(machine: Machine) -> None:
    with pytest.raises(
        EngineError, match=r"engine\.plan: TensorRT .* cannot load it \(the plan has no header\)"
    ):
        machine.load(plan=b"no plan")
