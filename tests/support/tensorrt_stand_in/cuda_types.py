# ruff: noqa: N801, N815 -- the names are CUDA's
"""The types of the stand-in for CUDA: errors, memory, streams, events and graphs."""

from __future__ import annotations

import enum
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from tests.support.tensorrt_stand_in.races import Ranges


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
    """Work for a stream: `run` reads and writes the given memory."""

    name: str
    run: Callable[[], None]
    reads: Ranges
    writes: Ranges
    owner: Owner | None = None


@dataclass
class Allocation:
    """A block of memory: ``device`` or ``pinned``."""

    address: int
    content: npt.NDArray[np.uint8]
    kind: str
    is_freed: bool = False

    def __contains__(self, address: int) -> bool:
        return self.address <= address < self.address + len(self.content)


@dataclass
class Event:
    """An event: how often it was recorded, and which of the records is complete."""

    recorded: int = 0
    completed: int = 0
    clock: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True)
class Record:
    """The record of an event in a stream's queue."""

    event: Event
    number: int


@dataclass(frozen=True)
class Wait:
    """The wait for a record of an event in a stream's queue."""

    event: Event
    number: int


@dataclass
class Stream:
    """A stream's queue, and what it captures."""

    queue: deque[Operation | Record | Wait] = field(default_factory=deque)
    captured: list[Operation] | None = None
    is_valid: bool = True
    """Whether the capture has not been invalidated."""


@dataclass
class Graph:
    """A captured or instantiated graph."""

    operations: list[Operation]
