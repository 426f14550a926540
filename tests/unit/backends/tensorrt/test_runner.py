"""The runner's logic, on stand-ins for TensorRT and CUDA that run on a CPU: no proof of TensorRT."""

from __future__ import annotations

import gc
import logging
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.backends.tensorrt import runner as runner_module
from ccr_deploy.backends.tensorrt.device_arrays import DeviceArray
from ccr_deploy.backends.tensorrt.profiles import Profile, parts_of
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
from tests.support.tensorrt_stand_in.cuda import StandInCuda
from tests.support.tensorrt_stand_in.cuda_types import cudaError_t
from tests.support.tensorrt_stand_in.kernels import CpuKernels
from tests.support.tensorrt_stand_in.library import plan_of
from tests.support.tensorrt_stand_in.machine import SIZES, Machine, OnDevice, check_equal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ccr_deploy.backends.tensorrt.runner import TensorRtRunner


class StandInMachine(Machine):
    """A machine with a stand-in for CUDA too."""

    cuda: StandInCuda

    def enqueued(self) -> list[str]:
        """Return what was enqueued or waited for, each with its stream, and forget it."""
        streams: dict[int, str] = {}
        found = []
        for entry in self.cuda.timeline:
            if entry.verb in {"enqueue", "wait"}:
                lane = streams.setdefault(entry.stream or 0, "AB"[len(streams) % 2])
                found.append(f"{lane} {entry.what or 'wait'}")
        self.cuda.timeline.clear()
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInMachine]:
    cuda = StandInCuda()
    machine = StandInMachine(tmp_path, cuda, CpuKernels(cuda))

    def view_of(_: str, array: OnDevice, __: int) -> DeviceArray:
        return DeviceArray(array.address, array.shape, np.dtype(np.uint8), array)

    monkeypatch.setattr(runner_module, "view_of", view_of)  # cuda-core asks the driver
    gc.freeze()  # what is left in a cycle was made since then: other objects need no search
    yield machine
    gc.collect()
    gc.unfreeze()
    assert machine.cuda.misuses == []
    assert machine.cuda.pending == 0
    assert machine.cuda.left == {}


@pytest.fixture
def runner(machine: StandInMachine) -> Iterator[TensorRtRunner]:
    with machine.load() as runner:
        yield runner
    assert machine.cuda.left == {}


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        (1, [1]),
        (2, [4]),
        (4, [4]),
        (5, [16]),
        (16, [16]),
        (17, [16, 1]),
        (35, [16, 16, 4]),
        (40, [16, 16, 16]),
    ],
)
def test_parts_use_the_smallest_profiles_that_fit(batch: int, sizes: list[int]) -> None:
    profiles = [Profile(index, *sizes) for index, sizes in enumerate(SIZES)]
    parts = parts_of(batch, profiles)
    assert [part.padded_size for part in parts] == sizes
    assert [index for part in parts for index in range(part.start, part.start + part.size)] == [*range(batch)]


def test_each_profile_has_its_own_context_and_graph(machine: StandInMachine, runner: TensorRtRunner) -> None:
    for size in (1, 4, 16, 1, 4, 16):
        machine.check(runner, size)
    assert runner.captured_batch_sizes == {1, 4, 16}
    assert machine.cuda.left["executable"] == 3


def test_parts_overlap(machine: StandInMachine, runner: TensorRtRunner) -> None:
    """The next part's copies in are enqueued before the host waits for a part, kernels in order."""
    runner.infer(machine.feeds(64))  # captures
    machine.enqueued()
    machine.check(runner, 64)
    copies_in, copies_out = ["copy in"] * 2, ["copy out"] * 2
    after_other = [*copies_in, "wait for event", "graph", "event", *copies_out]
    assert machine.enqueued() == [
        *(f"A {what}" for what in (*copies_in, "graph", "event", *copies_out)),
        *(f"B {what}" for what in after_other),
        "A wait",
        *(f"A {what}" for what in after_other),
        "B wait",
        *(f"B {what}" for what in after_other),
        "A wait",
        "B wait",
    ]


def test_a_batch_of_one_part_uses_one_stream_and_one_wait(
    machine: StandInMachine, runner: TensorRtRunner
) -> None:
    runner.infer(machine.feeds(4))
    machine.enqueued()
    runner.infer(machine.feeds(3))
    found = machine.enqueued()
    assert {entry[0] for entry in found} == {"A"}
    assert found.count("A wait") == 1
    assert found.count("A graph") == 1


class NotingTimer:
    """A device timer that notes how many commands were enqueued before its events."""

    def __init__(self, machine: StandInMachine) -> None:
        self._timeline = machine.cuda.timeline
        self.started: list[int] = []
        self.stopped: list[int] = []

    def start(self, _: int) -> None:
        self.started.append(len(self._timeline))

    def stop(self, _: int) -> None:
        self.stopped.append(len(self._timeline))


@pytest.mark.parametrize("is_on_device", [False, True])
def test_the_device_time_is_from_the_first_copy_to_the_last(
    machine: StandInMachine, runner: TensorRtRunner, is_on_device: bool
) -> None:
    feeds = machine.feeds(40)
    array = machine.on_device(feeds["image"])
    if is_on_device:
        feeds["image"] = array
    runner.infer(feeds)  # prepares contexts, which is not measured
    machine.cuda.timeline.clear()
    runner.device_timer = timer = NotingTimer(machine)
    runner.infer(feeds)
    enqueued = [index for index, entry in enumerate(machine.cuda.timeline) if entry.verb == "enqueue"]
    assert timer.started[0] <= enqueued[0]
    assert timer.stopped[-1] > enqueued[-1]
    array.release()


def test_a_run_without_copies_is_its_kernels(machine: StandInMachine, runner: TensorRtRunner) -> None:
    feeds = machine.feeds(4)
    run = runner.on_device(feeds)
    assert run
    machine.enqueued()
    runner.device_timer = timer = NotingTimer(machine)
    run()
    run()
    assert machine.enqueued() == ["A graph", "A wait"] * 2
    assert (timer.started, len(timer.stopped)) == ([0, 2], 2)
    runner.device_timer = None
    check_equal(runner.infer(feeds), feeds)


def test_a_batch_in_parts_has_no_run_without_copies(machine: StandInMachine, runner: TensorRtRunner) -> None:
    assert runner.on_device(machine.feeds(40)) is None


def test_everything_is_released_in_order(machine: StandInMachine) -> None:
    with machine.load() as runner:
        machine.check(runner, 1)
        machine.check(runner, 40)
        array = machine.on_device(machine.feeds(4)["image"])
        runner.infer({"image": array, "bias": machine.feeds(4)["bias"]})
        machine.cuda.timeline.clear()
    order = [entry.what for entry in machine.cuda.timeline if entry.verb == "destroy"]
    first = {what: order.index(what) for what in order}
    last = {what: len(order) - 1 - order[::-1].index(what) for what in order}
    assert last["graph"] < first["context"]
    assert last["context"] < first["engine"] < first["runtime"]
    assert last["runtime"] < min(first["event"], first["stream"], first["device memory"])
    array.release()
    assert machine.cuda.left == {}


def test_a_closed_runner_is_refused(machine: StandInMachine) -> None:
    runner = machine.load()
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="closed"):
        runner.infer(machine.feeds(1))
    assert machine.cuda.left == {}


def test_memory_on_the_gpu_is_counted(machine: StandInMachine) -> None:
    with machine.load() as runner:
        held = sum(block.content.nbytes for block in machine.cuda._memory if block.kind == "device")
        assert runner.device_memory_mib == (held + len(plan_of(*SIZES))) / 2**20


def test_memory_does_not_grow(machine: StandInMachine, runner: TensorRtRunner) -> None:
    for batch in (1, 4, 16, 40):
        machine.check(runner, batch)
    left = machine.cuda.left
    for batch in (1, 40, 3, 16, 7) * 3:
        machine.check(runner, batch)
    assert machine.cuda.left == left


# Arrays that are on the GPU already.


def test_an_aligned_array_of_a_profile_s_size_is_read_in_place(
    machine: StandInMachine, runner: TensorRtRunner
) -> None:
    feeds = machine.feeds(4)
    arrays = {name: machine.on_device(array) for name, array in feeds.items()}
    machine.enqueued()
    check_equal(runner.infer(arrays), feeds)
    assert not [entry for entry in machine.enqueued() if "copy in" in entry or "copy within" in entry]
    for array in arrays.values():
        array.release()


# What can fail half-way.


def test_an_earlier_error_is_not_given_as_the_reason(machine: StandInMachine, runner: TensorRtRunner) -> None:
    machine.library.rejects.add("set_input_shape")
    for machine.library.is_silent, reason in ((False, "the stand-in rejects it"), (True, "no reason given")):
        with pytest.raises(EngineError, match=reason):
            runner.infer(machine.feeds(4))


@pytest.mark.parametrize("function", ["cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamSynchronize"])
@pytest.mark.parametrize("result", [cudaError_t.cudaErrorIllegalAddress, KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_after_an_error_or_ctrl_c_the_gpu_is_idle(
    machine: StandInMachine,
    runner: TensorRtRunner,
    function: str,
    result: cudaError_t | BaseException,
    call: int,
) -> None:
    """The caller's arrays and the buffers are not in use any more, and the runner still works."""
    runner.infer(machine.feeds(64))  # captures
    machine.cuda.fail(function, call, result)
    kind = EngineError if isinstance(result, cudaError_t) else KeyboardInterrupt
    with pytest.raises(kind):
        runner.infer(machine.feeds(64))
    assert machine.cuda.pending == 0
    machine.check(runner, 64)


def test_the_host_waits_for_both_streams_after_an_error(
    machine: StandInMachine, runner: TensorRtRunner
) -> None:
    """The second stream is waited for even if the wait for the first one fails as well."""
    runner.infer(machine.feeds(64))
    before = machine.cuda.calls["cudaStreamSynchronize"]
    machine.cuda.fail("cudaStreamSynchronize", 1, cudaError_t.cudaErrorIllegalAddress)
    machine.cuda.fail("cudaStreamSynchronize", 2, cudaError_t.cudaErrorIllegalAddress)
    with pytest.raises(EngineError):
        runner.infer(machine.feeds(64))
    assert machine.cuda.calls["cudaStreamSynchronize"] == before + 3
    runner._pipeline.wait()


def test_a_batch_that_cannot_be_captured_runs_without_a_graph(
    machine: StandInMachine, runner: TensorRtRunner, caplog: pytest.LogCaptureFixture
) -> None:
    machine.cuda.fail("cudaStreamEndCapture", 1, cudaError_t.cudaErrorStreamCaptureInvalidated)
    machine.cuda.fail("cudaGraphInstantiate", 1, cudaError_t.cudaErrorMemoryAllocation)
    with caplog.at_level(logging.WARNING):
        for batch in (4, 16, 1):
            machine.check(runner, batch)
            machine.check(runner, batch)
    assert "cannot be captured as a CUDA graph: cudaErrorStreamCaptureInvalidated" in caplog.text
    assert "cannot be captured as a CUDA graph: cudaErrorMemoryAllocation" in caplog.text
    assert machine.cuda.calls["cudaGetLastError"] == 2  # otherwise TensorRT's next launch would report them
    assert runner.captured_batch_sizes == {1}


def test_tensorrt_rtx_may_refuse_a_capture(machine: StandInMachine, caplog: pytest.LogCaptureFixture) -> None:
    machine.use_version("rtx")
    machine.library.rejects.add("is_stream_capturable")
    with machine.load() as runner, caplog.at_level(logging.WARNING):
        machine.check(runner, 20)
        assert runner.captured_batch_sizes == frozenset()
    assert "batch 16 cannot be captured" in caplog.text


def test_tensorrt_rtx_s_compiled_kernels_are_stored(machine: StandInMachine) -> None:
    machine.use_version("rtx")
    with machine.load() as runner:
        machine.check(runner, 4)
        assert b"batch 4 of profile 1" in machine.cache.read_bytes()
        array = machine.on_device(machine.feeds(16)["image"])
        runner.infer({"image": array, "bias": machine.feeds(16)["bias"]})
        assert b"batch 16 of profile 2" in machine.cache.read_bytes()
        array.release()
    first = machine.cache.stat().st_mtime_ns
    with machine.load() as runner:
        machine.check(runner, 4)
    assert machine.cache.stat().st_mtime_ns == first


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("cudaMalloc", 1),
        ("cudaMalloc", 5),
        ("cudaMallocHost", 3),
        ("cudaStreamCreateWithFlags", 2),
        ("cudaEventCreateWithFlags", 1),
    ],
)
def test_too_little_memory_leaves_nothing(machine: StandInMachine, function: str, call: int) -> None:
    machine.cuda.fail(function, call, cudaError_t.cudaErrorMemoryAllocation)
    with pytest.raises(EngineError, match="CUDA failed: cudaErrorMemoryAllocation"):
        machine.load()
    assert machine.cuda.left == {}


def test_a_wrong_input_is_refused_and_changes_nothing(
    machine: StandInMachine, runner: TensorRtRunner
) -> None:
    good = machine.feeds(4)
    machine.enqueued()
    for feeds in ({}, {**good, "photo": good["image"]}, {**good, "image": good["image"][:3]}):
        with pytest.raises(EngineError):
            runner.infer(feeds)
    assert machine.enqueued() == []
    machine.check(runner, 4)


def test_two_threads_cannot_share_a_runner(machine: StandInMachine, runner: TensorRtRunner) -> None:
    """The other thread starts while this one waits for the GPU, in the stand-in's kernel."""
    errors: list[str] = []
    feeds, other = machine.feeds(4), machine.feeds(4)

    def infer() -> None:
        try:
            runner.infer(other)
        except EngineError as error:
            errors.append(str(error))

    def wait_in_between() -> tuple[cudaError_t]:
        thread = threading.Thread(target=infer)
        thread.start()
        thread.join()
        return wait(*waited)

    wait, waited = machine.cuda.cudaStreamSynchronize, (runner._in_place.stream,)
    machine.cuda.cudaStreamSynchronize = lambda _: wait_in_between()  # type: ignore[method-assign]
    check_equal(runner.infer(feeds), feeds)
    machine.cuda.cudaStreamSynchronize = wait  # type: ignore[method-assign]
    assert errors
    assert all("another thread uses this runner" in error for error in errors)
