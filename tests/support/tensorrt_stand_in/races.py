"""Find accesses to the same memory in different streams that nothing orders, with vector clocks.

Each stream counts its operations. An operation happens after those of another stream that its clock covers:
up to the record of an event that the stream waited for, or to the end of a stream that the host waited for
before it enqueued the operation. (Vector clocks: F. Mattern, "Virtual time and global states of distributed
systems", 1989.)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

Ranges = tuple[tuple[int, int], ...]
"""Ranges of memory: first address and number of bytes."""


@dataclass(frozen=True)
class _Access:
    name: str
    stream: int
    number: int
    address: int
    size: int
    writes: bool

    def conflicts(self, other: _Access) -> bool:
        """Return whether the order of both accesses matters."""
        overlap = self.address < other.address + other.size and other.address < self.address + self.size
        return overlap and (self.writes or other.writes)


class Order:
    """What happens before what, and the accesses that are not yet before everything that follows."""

    def __init__(self) -> None:
        self._clocks: dict[int, Counter[int]] = {}
        self._host: Counter[int] = Counter()
        self._accesses: list[_Access] = []

    def race(self, stream: int, name: str, reads: Ranges, writes: Ranges) -> str | None:
        """Add an operation to a stream; return a description if an earlier access races with it.

        Args:
            stream: the stream.
            name: the name of the operation.
            reads: the memory that it reads.
            writes: the memory that it writes.
        """
        clock = self._clock(stream)
        clock[stream] += 1
        accesses = [
            _Access(name, stream, clock[stream], *part, is_write)
            for parts, is_write in ((reads, False), (writes, True))
            for part in parts
        ]
        unordered = [other for other in self._accesses if other.number > clock[other.stream]]
        self._accesses += accesses
        for access in accesses:
            for other in unordered:
                if access.conflicts(other):
                    return f"{name} in stream {stream} races with {other.name} in stream {other.stream}"
        return None

    def record(self, stream: int) -> Counter[int]:
        """Return the clock of an event that a stream records."""
        return self._clock(stream).copy()

    def wait(self, stream: int, event: Counter[int]) -> None:
        """Let later operations of a stream happen after an event."""
        self._clocks[stream] = self._clock(stream) | event

    def host_waits(self, stream: int) -> None:
        """Let everything that the host enqueues from now on happen after all operations of a stream."""
        self._host |= self._clock(stream)
        self._accesses = [entry for entry in self._accesses if entry.number > self._host[entry.stream]]

    def _clock(self, stream: int) -> Counter[int]:
        """Return the clock of a stream; what the host has waited for happens before what it enqueues."""
        self._clocks[stream] = self._clocks.get(stream, Counter()) | self._host
        return self._clocks[stream]
