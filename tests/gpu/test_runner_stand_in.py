"""The runner over real CUDA, with a stand-in for TensorRT's library that launches real kernels.

It tests buffers, streams, events and CUDA graphs on a GPU that TensorRT does not support or is not installed
for. It is no proof of TensorRT.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.core.gpu import checked, cuda_runtime
from ccr_deploy.errors import EngineError
from tests.support.tensorrt_stand_in.behaviour import (  # noqa: F401 -- tests
    test_a_batch_is_padded_to_the_smallest_profile,
    test_a_call_that_tensorrt_rejects_is_reported,
    test_a_damaged_plan_is_refused,
    test_a_dynamic_profile_runs_every_size_without_padding,
    test_a_larger_batch_runs_in_parts,
    test_a_run_that_tensorrt_rejects_is_reported,
    test_arrays_on_the_gpu,
    test_every_version_s_calls,
    test_later_calls_do_not_overwrite_outputs,
    test_only_the_items_are_copied_not_the_padding,
    test_profiles_may_be_in_any_order,
)
from tests.support.tensorrt_stand_in.gpu_kernels import GpuKernels
from tests.support.tensorrt_stand_in.machine import Machine, check_equal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ccr_deploy.backends.tensorrt.runner import TensorRtRunner


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    cuda = cuda_runtime()
    return Machine(tmp_path, cuda, GpuKernels(cuda))


@pytest.fixture
def runner(machine: Machine) -> Iterator[TensorRtRunner]:
    with machine.load() as runner:
        yield runner


def free_bytes() -> int:
    return int(checked(cuda_runtime().cudaMemGetInfo())[0])


def test_a_thousand_batches_are_right_and_memory_does_not_grow(
    machine: Machine, runner: TensorRtRunner
) -> None:
    sizes = (1, 3, 16, 64, 100, 5)
    for size in sizes:
        machine.check(runner, size)
    before = free_bytes()
    for number in range(1000):
        machine.check(runner, sizes[number % len(sizes)])
    assert free_bytes() >= before - (2 << 20)


def test_closing_frees_the_memory(machine: Machine) -> None:
    free = []
    for _ in range(6):
        with machine.load() as runner:
            machine.check(runner, 40)
        free.append(free_bytes())
    assert free[-1] >= free[1] - (2 << 20)
    with pytest.raises(EngineError, match="closed"):
        runner.infer(machine.feeds(1))


def test_graphs_keep_what_they_use(machine: Machine, runner: TensorRtRunner) -> None:
    """Memory that was freed after the capture, if any, is overwritten before the graphs run again."""
    machine.check(runner, 40)
    gc.collect()
    overwriting = machine.on_device(np.full(64 << 20, 255, np.uint8))
    machine.check(runner, 40)
    overwriting.release()


def test_pending_writes_of_another_library_finish_first(machine: Machine, runner: TensorRtRunner) -> None:
    torch = pytest.importorskip("torch")
    feeds = machine.feeds(64)
    source = torch.from_numpy(feeds["image"]).cuda()
    with torch.cuda.stream(torch.cuda.Stream()):
        image = torch.zeros_like(source)
        torch.cuda._sleep(100_000_000)
        image.copy_(source)
        found = runner.infer({**feeds, "image": image})
    check_equal(found, feeds)
