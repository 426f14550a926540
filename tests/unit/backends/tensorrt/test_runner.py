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
from ccr_deploy.backends.tensorrt.runner import TensorRtRunner
from ccr_deploy.errors import EngineError
from tests.support.tensorrt_stand_in.cuda import StandInCuda, cudaError_t
from tests.support.tensorrt_stand_in.kernels import BIAS_BYTES, IMAGE_BYTES, CpuKernels, expected
from tests.support.tensorrt_stand_in.library import StandInLibrary, plan_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from tests.support.tensorrt_stand_in.library import Version

SIZES = ((1, 1), (4, 4), (16, 16))
DYNAMIC = ((1, 16),)


class Machine:
    """A machine with stand-ins for CUDA and TensorRT."""

    def __init__(self, folder: Path) -> None:
        self.cuda = StandInCuda()
        self.library = StandInLibrary(CpuKernels(self.cuda))
        self.cache = folder / "engine.plan.cache"
        self._folder = folder
        self._random = np.random.default_rng(0)

    def use_version(self, version: Version) -> None:
        """Use another version of TensorRT."""
        self.library = StandInLibrary(CpuKernels(self.cuda), version)

    def load(self, *profiles: tuple[int, int], plan: bytes = b"") -> TensorRtRunner:
        """Load an engine with the given smallest and largest batch sizes."""
        return TensorRtRunner(
            self.library,
            self.cuda,
            plan or plan_of(*(profiles or SIZES)),
            self._folder / "engine.plan",
            runtime_cache=self.cache if self.library.version == "rtx" else None,
            allow_host_code=False,
        )

    def feeds(self, batch: int) -> dict[str, npt.NDArray[np.uint8]]:
        """Return inputs that no other call returns."""
        return {
            "image": self._random.integers(0, 256, (batch, IMAGE_BYTES), np.uint8),
            "bias": self._random.integers(0, 256, (batch, BIAS_BYTES), np.uint8),
        }

    def check(self, runner: TensorRtRunner, batch: int) -> None:
        """Run a batch, and compare its outputs with the expected ones."""
        feeds = self.feeds(batch)
        check_equal(runner.infer(feeds), feeds)

    def on_device(self, array: npt.NDArray[np.uint8], offset: int = 0) -> OnDevice:
        """Copy an array to memory of the GPU that belongs to the caller."""
        _, address = self.cuda.cudaMalloc(array.nbytes + offset)
        self.cuda.view(address + offset, array.nbytes, "device")[:] = array.ravel()
        return OnDevice(address, address + offset, array.shape)

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


class OnDevice:
    """An array of the caller on the GPU."""

    def __init__(self, allocation: int, address: int, shape: tuple[int, ...]) -> None:
        self.allocation = allocation
        self.address = address
        self.shape = shape
        self.__cuda_array_interface__ = {}


def check_equal(found: dict[str, npt.NDArray[np.generic]], feeds: dict[str, npt.NDArray[np.uint8]]) -> None:
    outputs = expected(**feeds)
    assert found.keys() == outputs.keys()
    for name, output in outputs.items():
        np.testing.assert_array_equal(found[name], output)
        assert found[name].dtype == output.dtype


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(tmp_path)

    def view_of(_: str, array: OnDevice, __: int) -> DeviceArray:
        return DeviceArray(array.address, array.shape, np.dtype(np.uint8), array)

    monkeypatch.setattr(runner_module, "view_of", view_of)  # cuda-core asks the driver
    yield machine
    gc.collect()
    assert machine.cuda.misuses == []


@pytest.fixture
def runner(machine: Machine) -> Iterator[TensorRtRunner]:
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


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 15, 16])
def test_a_batch_is_padded_to_the_smallest_profile(
    machine: Machine, runner: TensorRtRunner, batch: int
) -> None:
    machine.check(runner, batch)
    machine.check(runner, batch)
    assert runner.captured_batch_sizes == {next(size for size, _ in SIZES if size >= batch)}


def test_each_profile_has_its_own_context_and_graph(machine: Machine, runner: TensorRtRunner) -> None:
    for size in (1, 4, 16, 1, 4, 16):
        machine.check(runner, size)
    assert runner.captured_batch_sizes == {1, 4, 16}
    assert machine.cuda.left["executable"] == 3


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


def test_parts_overlap(machine: Machine, runner: TensorRtRunner) -> None:
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


def test_a_batch_of_one_part_uses_one_stream_and_one_wait(machine: Machine, runner: TensorRtRunner) -> None:
    runner.infer(machine.feeds(4))
    machine.enqueued()
    runner.infer(machine.feeds(3))
    found = machine.enqueued()
    assert {entry[0] for entry in found} == {"A"}
    assert found.count("A wait") == 1
    assert found.count("A graph") == 1


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
    assert machine.cuda.left == {}


def test_everything_is_released_in_order(machine: Machine) -> None:
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
    machine.cuda.cudaFree(array.allocation)
    assert machine.cuda.left == {}


def test_a_closed_runner_is_refused(machine: Machine) -> None:
    runner = machine.load()
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="closed"):
        runner.infer(machine.feeds(1))
    assert machine.cuda.left == {}


def test_memory_on_the_gpu_is_counted(machine: Machine) -> None:
    with machine.load() as runner:
        held = sum(block.content.nbytes for block in machine.cuda._memory if block.kind == "device")
        assert runner.device_memory_mib == (held + len(plan_of(*SIZES))) / 2**20


def test_memory_does_not_grow(machine: Machine, runner: TensorRtRunner) -> None:
    for batch in (1, 4, 16, 40):
        machine.check(runner, batch)
    left = machine.cuda.left
    for batch in (1, 40, 3, 16, 7) * 3:
        machine.check(runner, batch)
    assert machine.cuda.left == left


# Arrays that are on the GPU already.


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
        machine.cuda.cudaFree(array.allocation)


def test_an_aligned_array_of_a_profile_s_size_is_read_in_place(
    machine: Machine, runner: TensorRtRunner
) -> None:
    feeds = machine.feeds(4)
    arrays = {name: machine.on_device(array) for name, array in feeds.items()}
    machine.enqueued()
    check_equal(runner.infer(arrays), feeds)
    assert not [entry for entry in machine.enqueued() if "copy in" in entry or "copy within" in entry]
    for array in arrays.values():
        machine.cuda.cudaFree(array.allocation)


# What can fail half-way.


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
    assert machine.cuda.pending == 0
    machine.library.rejects.clear()
    machine.check(runner, 20)


def test_an_earlier_error_is_not_given_as_the_reason(machine: Machine, runner: TensorRtRunner) -> None:
    machine.library.rejects.add("set_input_shape")
    with pytest.raises(EngineError):
        runner.infer(machine.feeds(4))
    machine.library.rejects.clear()
    machine.cuda.fail("cudaMemcpyAsync", 1, cudaError_t.cudaErrorIllegalAddress)
    with pytest.raises(EngineError) as caught:
        runner.infer(machine.feeds(4))
    assert str(caught.value) == "CUDA failed: cudaErrorIllegalAddress"


@pytest.mark.parametrize("function", ["cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamSynchronize"])
@pytest.mark.parametrize("result", [cudaError_t.cudaErrorIllegalAddress, KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_after_an_error_or_ctrl_c_the_gpu_is_idle(
    machine: Machine,
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


def test_the_host_waits_for_both_streams_after_an_error(machine: Machine, runner: TensorRtRunner) -> None:
    """The second stream is waited for even if the wait for the first one fails as well."""
    runner.infer(machine.feeds(64))
    machine.cuda.fail("cudaStreamSynchronize", 1, cudaError_t.cudaErrorIllegalAddress)
    machine.cuda.fail("cudaStreamSynchronize", 2, cudaError_t.cudaErrorIllegalAddress)
    with pytest.raises(EngineError):
        runner.infer(machine.feeds(64))
    machine.enqueued()
    machine.check(runner, 64)


def test_a_batch_that_cannot_be_captured_runs_without_a_graph(
    machine: Machine, runner: TensorRtRunner, caplog: pytest.LogCaptureFixture
) -> None:
    machine.cuda.fail("cudaStreamEndCapture", 1, cudaError_t.cudaErrorStreamCaptureInvalidated)
    machine.cuda.fail("cudaGraphInstantiate", 1, cudaError_t.cudaErrorMemoryAllocation)
    with caplog.at_level(logging.WARNING):
        for batch in (4, 16, 1):
            machine.check(runner, batch)
            machine.check(runner, batch)
    assert "cannot be captured as a CUDA graph: cudaErrorStreamCaptureInvalidated" in caplog.text
    assert "cannot be captured as a CUDA graph: cudaErrorMemoryAllocation" in caplog.text
    assert runner.captured_batch_sizes == {1}


def test_tensorrt_rtx_may_refuse_a_capture(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.use_version("rtx")
    machine.library.rejects.add("is_stream_capturable")
    with machine.load() as runner, caplog.at_level(logging.WARNING):
        machine.check(runner, 20)
        assert runner.captured_batch_sizes == frozenset()
    assert "batch 16 cannot be captured" in caplog.text


def test_tensorrt_rtx_s_compiled_kernels_are_stored(machine: Machine) -> None:
    machine.use_version("rtx")
    with machine.load() as runner:
        machine.check(runner, 4)
        assert b"batch 4 of profile 1" in machine.cache.read_bytes()
        array = machine.on_device(machine.feeds(16)["image"])
        runner.infer({"image": array, "bias": machine.feeds(16)["bias"]})
        assert b"batch 16 of profile 2" in machine.cache.read_bytes()
        machine.cuda.cudaFree(array.allocation)
    first = machine.cache.stat().st_mtime_ns
    with machine.load() as runner:
        machine.check(runner, 4)
    assert machine.cache.stat().st_mtime_ns == first


def test_a_damaged_plan_is_refused(machine: Machine) -> None:
    with pytest.raises(
        EngineError, match=r"engine\.plan: TensorRT .* cannot load it \(the plan has no header\)"
    ):
        machine.load(plan=b"no plan")
    assert machine.cuda.left == {}


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
def test_too_little_memory_leaves_nothing(machine: Machine, function: str, call: int) -> None:
    machine.cuda.fail(function, call, cudaError_t.cudaErrorMemoryAllocation)
    with pytest.raises(EngineError, match="CUDA failed: cudaErrorMemoryAllocation"):
        machine.load()
    assert machine.cuda.left == {}


def test_a_wrong_input_is_refused_and_changes_nothing(machine: Machine, runner: TensorRtRunner) -> None:
    good = machine.feeds(4)
    machine.enqueued()
    for feeds in ({}, {**good, "photo": good["image"]}, {**good, "image": good["image"][:3]}):
        with pytest.raises(EngineError):
            runner.infer(feeds)
    assert machine.enqueued() == []
    machine.check(runner, 4)


def test_two_threads_cannot_share_a_runner(machine: Machine, runner: TensorRtRunner) -> None:
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
