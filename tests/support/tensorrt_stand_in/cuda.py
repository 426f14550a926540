# ruff: noqa: N801, N802, N815 -- the names are CUDA's
"""A stand-in for `cuda.bindings.runtime` on a CPU: no proof of what a GPU does.

Streams are queues that run as late as possible and in turns: one operation of each stream, until the stream
that the host waits for is empty. So a missing wait or event shows as wrong data. Memory is the host's, with
its real addresses. Misuse raises an error at once, such as a second free, or access to freed memory; misuse
that is found in a finalizer is only listed in `misuses`. `timeline` lists what the host did, in order.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

_ALIGNMENT = 256
_FREED = 0xDD
"""Freed memory is filled with this byte, new memory with the next."""


class cudaError_t(enum.IntEnum):
    """The errors that the stand-in returns, with CUDA's numbers."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    """The directions of a copy."""

    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    """The modes of a capture; only one is used."""

    cudaStreamCaptureModeThreadLocal = 1


class MisuseError(AssertionError):
    """A use of CUDA or of TensorRT that is undefined or forbidden."""


@dataclass(frozen=True)
class Done:
    """An entry of the timeline: what the host did (``enqueue``, ``wait``, …), where, and to what."""

    verb: str
    stream: int | None
    what: str


@dataclass
class Owner:
    """An object of the library whose kernels are in queues and graphs; it must outlive them."""

    name: str
    is_alive: bool = True


@dataclass(frozen=True)
class Operation:
    """Work for a stream: `run` accesses the memory at `addresses`."""

    name: str
    run: Callable[[], None]
    addresses: tuple[int, ...] = ()
    owner: Owner | None = None


@dataclass
class _Allocation:
    address: int
    content: npt.NDArray[np.uint8]
    kind: str
    is_freed: bool = False

    def __contains__(self, address: int) -> bool:
        return self.address <= address < self.address + len(self.content)


@dataclass
class _Event:
    recorded: int = 0
    completed: int = 0


@dataclass(frozen=True)
class _Record:
    event: _Event
    number: int


@dataclass(frozen=True)
class _Wait:
    event: _Event
    number: int


@dataclass
class _Stream:
    queue: deque[Operation | _Record | _Wait] = field(default_factory=deque)
    captured: list[Operation] | None = None
    is_valid: bool = True
    """Whether the capture has not been invalidated."""


@dataclass
class _Graph:
    operations: list[Operation]


class StandInCuda:
    """The functions of the CUDA runtime that this project calls, with CUDA's names and results."""

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaStreamNonBlocking = 1
    cudaEventDisableTiming = 2

    def __init__(self) -> None:
        self.timeline: list[Done] = []
        self.misuses: list[str] = []
        self.calls: Counter[str] = Counter()
        self._failures: dict[tuple[str, int], cudaError_t | BaseException] = {}
        self._memory: list[_Allocation] = []
        self._streams: dict[int, _Stream] = {}
        self._events: list[_Event] = []
        self._graphs: list[_Graph] = []
        self._executables: list[_Graph] = []
        self._handles = count(1)

    def fail(self, function: str, call: int, result: cudaError_t | BaseException) -> None:
        """Let a later call of a function return an error, or raise an exception.

        Args:
            function: the name of the function.
            call: which of the later calls, counted from 1.
            result: the error or the exception.
        """
        self._failures[function, self.calls[function] + call] = result

    @property
    def pending(self) -> int:
        """The number of operations that have not run yet."""
        return sum(len(stream.queue) for stream in self._streams.values())

    @property
    def left(self) -> dict[str, int]:
        """The numbers of objects that were not released, by kind."""
        kinds = Counter(block.kind for block in self._memory if not block.is_freed)
        kinds += Counter(stream=len(self._streams), event=len(self._events))
        return dict(kinds + Counter(graph=len(self._graphs), executable=len(self._executables)))

    def misuse(self, what: str) -> MisuseError:
        """List a misuse, and return the error to raise."""
        self.misuses.append(what)
        return MisuseError(what)

    def view(self, address: int, size: int, kind: str) -> npt.NDArray[np.uint8]:
        """Return the bytes of an allocation, after checking that they may be accessed.

        Args:
            address: the address of the first byte.
            size: the number of bytes.
            kind: ``device`` or ``pinned``.
        """
        block = next((block for block in self._memory if address in block), None)
        if block is None or block.kind != kind:
            raise self.misuse(f"{address:#x} is not {kind} memory")
        if block.is_freed:
            raise self.misuse(f"{address:#x}: {kind} memory is used after it was freed")
        start = address - block.address
        if start + size > len(block.content):
            raise self.misuse(f"{address:#x}: {size} bytes exceed the {kind} memory")
        return block.content[start : start + size]

    def enqueue(self, stream: int, operation: Operation) -> None:
        """Put work into a stream, or into the graph that the stream is capturing."""
        queue = self._stream(stream)
        if queue.captured is not None:
            queue.captured.append(operation)
            return
        self._note("enqueue", stream, operation.name)
        queue.queue.append(operation)

    def is_capturing(self, stream: int) -> bool:
        """Return whether a stream is capturing a graph."""
        return self._stream(stream).captured is not None

    def destroy_owner(self, owner: Owner) -> None:
        """Note that an object of the library was destroyed; its graphs must have been destroyed before."""
        owner.is_alive = False
        self._note("destroy", None, owner.name)
        graphs = [*self._graphs, *self._executables]
        if any(operation.owner is owner for graph in graphs for operation in graph.operations):
            self.misuse(f"{owner.name} is destroyed before a graph of its kernels")

    # The functions of the CUDA runtime.

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMalloc", size, "device")

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMallocHost", size, "pinned")

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        return self._free(address, "device")

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return self._free(address, "pinned")

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: cudaMemcpyKind, stream: int
    ) -> tuple[Any, ...]:
        if error := self._failure("cudaMemcpyAsync"):
            return (error,)
        name, from_kind, to_kind = {
            cudaMemcpyKind.cudaMemcpyHostToDevice: ("copy in", "pinned", "device"),
            cudaMemcpyKind.cudaMemcpyDeviceToHost: ("copy out", "device", "pinned"),
            cudaMemcpyKind.cudaMemcpyDeviceToDevice: ("copy within", "device", "device"),
        }[kind]
        self.view(source, size, from_kind)
        self.view(target, size, to_kind)

        def copy() -> None:
            self.view(target, size, to_kind)[:] = self.view(source, size, from_kind)

        self.enqueue(stream, Operation(name, copy, (source, target)))
        return (cudaError_t.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        if error := self._failure("cudaStreamCreateWithFlags"):
            return error, None
        if flags != self.cudaStreamNonBlocking:
            raise self.misuse("a stream that waits for the default stream")
        handle = next(self._handles)
        self._streams[handle] = _Stream()
        return cudaError_t.cudaSuccess, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        if self._stream(stream).queue:
            raise self.misuse(f"stream {stream} is destroyed while it has work")
        del self._streams[stream]
        self._note("destroy", None, "stream")
        return (cudaError_t.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        if error := self._failure("cudaStreamSynchronize"):
            return (error,)
        if self._invalidates(stream):
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self._note("wait", stream, "")
        self._run_until_empty(self._stream(stream))
        return (cudaError_t.cudaSuccess,)

    def cudaEventCreateWithFlags(self, _: int) -> tuple[Any, ...]:
        if error := self._failure("cudaEventCreateWithFlags"):
            return error, None
        self._events.append(_Event())
        return cudaError_t.cudaSuccess, self._events[-1]

    def cudaEventDestroy(self, event: _Event) -> tuple[Any, ...]:
        self._remove(self._events, event, "event")
        return (cudaError_t.cudaSuccess,)

    def cudaEventRecord(self, event: _Event, stream: int) -> tuple[Any, ...]:
        event.recorded += 1
        self._note("enqueue", stream, "event")
        self._stream(stream).queue.append(_Record(event, event.recorded))
        return (cudaError_t.cudaSuccess,)

    def cudaStreamWaitEvent(self, stream: int, event: _Event, _: int) -> tuple[Any, ...]:
        self._note("enqueue", stream, "wait for event")
        self._stream(stream).queue.append(_Wait(event, event.recorded))
        return (cudaError_t.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, _: cudaStreamCaptureMode) -> tuple[Any, ...]:
        queue = self._stream(stream)
        if queue.captured is not None:
            raise self.misuse(f"stream {stream} is captured twice")
        queue.captured, queue.is_valid = [], True
        return (cudaError_t.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        queue = self._stream(stream)
        if queue.captured is None:
            raise self.misuse(f"stream {stream} is not captured")
        operations, queue.captured = queue.captured, None
        if error := self._failure("cudaStreamEndCapture"):
            return error, None
        if not queue.is_valid:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        self._graphs.append(_Graph(operations))
        return cudaError_t.cudaSuccess, self._graphs[-1]

    def cudaGraphInstantiate(self, graph: _Graph, _: int) -> tuple[Any, ...]:
        if error := self._failure("cudaGraphInstantiate"):
            return error, None
        self._executables.append(_Graph(list(graph.operations)))
        return cudaError_t.cudaSuccess, self._executables[-1]

    def cudaGraphLaunch(self, executable: _Graph, stream: int) -> tuple[Any, ...]:
        if error := self._failure("cudaGraphLaunch"):
            return (error,)
        if not any(executable is known for known in self._executables):
            raise self.misuse("a graph is launched after it was destroyed")
        self._note("enqueue", stream, "graph")
        self._stream(stream).queue.extend(executable.operations)
        return (cudaError_t.cudaSuccess,)

    def cudaGraphDestroy(self, graph: _Graph) -> tuple[Any, ...]:
        self._remove(self._graphs, graph, "captured graph")
        return (cudaError_t.cudaSuccess,)

    def cudaGraphExecDestroy(self, executable: _Graph) -> tuple[Any, ...]:
        self._remove(self._executables, executable, "graph")
        return (cudaError_t.cudaSuccess,)

    def cudaGetLastError(self) -> tuple[Any, ...]:
        self.calls["cudaGetLastError"] += 1
        return (cudaError_t.cudaSuccess,)

    # The parts of the functions above.

    def _note(self, verb: str, stream: int | None, what: str) -> None:
        self.timeline.append(Done(verb, stream, what))

    def _failure(self, function: str) -> cudaError_t | None:
        self.calls[function] += 1
        result = self._failures.pop((function, self.calls[function]), None)
        if isinstance(result, BaseException):
            raise result
        return result

    def _stream(self, handle: int) -> _Stream:
        if handle not in self._streams:
            raise self.misuse(f"stream {handle} does not exist")
        return self._streams[handle]

    def _invalidates(self, stream: int) -> bool:
        """Invalidate the capture of a stream; return whether there was one."""
        queue = self._stream(stream)
        queue.is_valid = queue.is_valid and queue.captured is None
        return queue.captured is not None

    def _allocate(self, function: str, size: int, kind: str) -> tuple[Any, ...]:
        if error := self._failure(function):
            return error, None
        if sum(self._invalidates(stream) for stream in self._streams):
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        if not size:
            return cudaError_t.cudaSuccess, 0
        whole = np.full(size + _ALIGNMENT, _FREED + 1, np.uint8)
        offset = -whole.ctypes.data % _ALIGNMENT
        content = whole[offset : offset + size]
        self._memory.append(_Allocation(content.ctypes.data, content, kind))
        return cudaError_t.cudaSuccess, content.ctypes.data

    def _free(self, address: int, kind: str) -> tuple[Any, ...]:
        known = (block for block in self._memory if block.address == address and block.kind == kind)
        block = next(known, None)
        if block is None or block.is_freed:
            raise self.misuse(f"{address:#x}: {kind} memory is freed twice, or was never allocated")
        queued = [operation for stream in self._streams.values() for operation in stream.queue]
        graphs = [operation for graph in self._executables for operation in graph.operations]
        for operation in (*queued, *graphs):
            if isinstance(operation, Operation) and any(used in block for used in operation.addresses):
                raise self.misuse(f"{kind} memory is freed before {operation.name}, which uses it")
        block.is_freed = True
        block.content[:] = _FREED  # the array is kept, so that the address is not used again
        self._note("destroy", None, f"{kind} memory")
        return (cudaError_t.cudaSuccess,)

    def _remove(self, known: list[Any], entry: object, name: str) -> None:
        index = next((index for index, other in enumerate(known) if other is entry), None)
        if index is None:
            raise self.misuse(f"{name} is destroyed twice, or does not exist")
        del known[index]
        self._note("destroy", None, name)

    def _run_until_empty(self, awaited: _Stream) -> None:
        while awaited.queue:
            # The latest streams first, and all of them: nothing is in order that an event does not order.
            if not sum(self._step(stream) for stream in reversed(self._streams.values())):
                raise self.misuse("the streams wait for each other")

    def _step(self, stream: _Stream) -> bool:
        """Run the next operation of a stream; return whether there was one that could run."""
        if not stream.queue:
            return False
        operation = stream.queue[0]
        if isinstance(operation, _Wait) and operation.event.completed < operation.number:
            return False
        stream.queue.popleft()
        if isinstance(operation, _Record):
            operation.event.completed = operation.number
        elif isinstance(operation, Operation):
            if operation.owner and not operation.owner.is_alive:
                raise self.misuse(f"{operation.name} runs after {operation.owner.name} was destroyed")
            operation.run()
        return True
