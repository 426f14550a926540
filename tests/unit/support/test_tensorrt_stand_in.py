"""What the stand-in for CUDA refuses, so that a wrong runner cannot pass its tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.tensorrt_stand_in.cuda import StandInCuda
from tests.support.tensorrt_stand_in.cuda_types import MisuseError, Operation, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 64


@pytest.fixture
def cuda() -> Iterator[StandInCuda]:
    cuda = StandInCuda()
    yield cuda
    assert cuda.misuses


class Program:
    """Memory and two streams, in which each run of `work` writes all memory on the GPU."""

    def __init__(self, cuda: StandInCuda) -> None:
        self.cuda = cuda
        self.device = cuda.cudaMalloc(SIZE)[1]
        self.pinned = cuda.cudaMallocHost(SIZE)[1]
        self.streams = [cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)[1] for _ in range(2)]
        self.owner = Owner("context")

    def work(self, stream: int) -> None:
        written = ((self.device, SIZE),)
        self.cuda.enqueue(stream, Operation("work", lambda: None, (), written, self.owner))

    def copy_out(self, stream: int, size: int = SIZE) -> None:
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.cuda.cudaMemcpyAsync(self.pinned, self.device, size, kind, stream)

    def captured(self) -> object:
        mode = self.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.cuda.cudaStreamBeginCapture(self.streams[0], mode)
        self.work(self.streams[0])
        graph = self.cuda.cudaStreamEndCapture(self.streams[0])[1]
        return self.cuda.cudaGraphInstantiate(graph, 0)[1]


def test_memory_is_freed_once(cuda: StandInCuda) -> None:
    program = Program(cuda)
    cuda.cudaFree(program.device)
    with pytest.raises(MisuseError, match="freed twice"):
        cuda.cudaFree(program.device)


def test_memory_of_one_kind_is_not_freed_as_the_other(cuda: StandInCuda) -> None:
    with pytest.raises(MisuseError, match="never allocated"):
        cuda.cudaFreeHost(Program(cuda).device)


def test_freed_memory_is_not_used(cuda: StandInCuda) -> None:
    program = Program(cuda)
    cuda.cudaFree(program.device)
    with pytest.raises(MisuseError, match="used after it was freed"):
        program.copy_out(program.streams[0])


def test_memory_has_an_end(cuda: StandInCuda) -> None:
    program = Program(cuda)
    with pytest.raises(MisuseError, match="exceed"):
        program.copy_out(program.streams[0], SIZE + 1)


def test_unpinned_memory_is_not_copied(cuda: StandInCuda) -> None:
    program, array = Program(cuda), np.zeros(SIZE, np.uint8)
    kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
    with pytest.raises(MisuseError, match="is not pinned memory"):
        cuda.cudaMemcpyAsync(program.device, array.ctypes.data, SIZE, kind, program.streams[0])


def test_memory_is_not_freed_before_work_that_uses_it(cuda: StandInCuda) -> None:
    program = Program(cuda)
    program.work(program.streams[0])
    with pytest.raises(MisuseError, match="freed before work"):
        cuda.cudaFree(program.device)


def test_memory_is_not_freed_before_a_graph_that_uses_it(cuda: StandInCuda) -> None:
    program = Program(cuda)
    program.captured()
    with pytest.raises(MisuseError, match="freed before work"):
        cuda.cudaFree(program.device)


def test_streams_that_nothing_orders_do_not_share_memory(cuda: StandInCuda) -> None:
    program = Program(cuda)
    first, second = program.streams
    event = cuda.cudaEventCreateWithFlags(cuda.cudaEventDisableTiming)[1]
    program.work(first)
    cuda.cudaEventRecord(event, first)
    cuda.cudaStreamWaitEvent(second, event, 0)
    program.work(second)  # after the first stream's
    with pytest.raises(MisuseError, match=f"copy out in stream {first} races with work in stream {second}"):
        program.copy_out(first)


def test_a_wait_of_the_host_orders_streams(cuda: StandInCuda) -> None:
    program = Program(cuda)
    first, second = program.streams
    program.work(first)
    cuda.cudaStreamSynchronize(first)
    program.work(second)
    with pytest.raises(MisuseError, match="races"):
        program.work(first)


def test_a_graph_is_destroyed_before_its_context(cuda: StandInCuda) -> None:
    program = Program(cuda)
    program.captured()
    cuda.destroy_owner(program.owner)
    assert "context is destroyed before a graph of its kernels" in cuda.misuses


def test_a_destroyed_graph_is_not_launched(cuda: StandInCuda) -> None:
    program = Program(cuda)
    executable = program.captured()
    cuda.cudaGraphExecDestroy(executable)
    with pytest.raises(MisuseError, match="after it was destroyed"):
        cuda.cudaGraphLaunch(executable, program.streams[0])


def test_work_of_a_destroyed_context_does_not_run(cuda: StandInCuda) -> None:
    program = Program(cuda)
    program.work(program.streams[0])
    cuda.destroy_owner(program.owner)
    with pytest.raises(MisuseError, match="after context was destroyed"):
        cuda.cudaStreamSynchronize(program.streams[0])


def test_a_stream_with_work_is_not_destroyed(cuda: StandInCuda) -> None:
    program = Program(cuda)
    program.work(program.streams[0])
    with pytest.raises(MisuseError, match="destroyed while it has work"):
        cuda.cudaStreamDestroy(program.streams[0])
