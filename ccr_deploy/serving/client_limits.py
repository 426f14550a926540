"""How many connections clients may hold, how long they may take, and how large a request's head may be."""

from __future__ import annotations

import resource
from dataclasses import dataclass

MAX_HEAD_BYTES = 16 * 1024
"""Of a request line and headers, of a URL, and of what surrounds a chunk of a body; of gRPC's metadata."""
ACCEPTED_AT_ONCE = 16
"""Connections that are accepted in one turn of the event loop."""
_HEALTH_CONNECTIONS = 4 * ACCEPTED_AT_ONCE
"""A client of health has sent its request before so many newer connections push it out."""
_MOST_CONNECTIONS = 1000
_OWN_FILES = 128
"""Engines, GPU drivers, libraries, listeners, and connections that were accepted but not looked at yet."""


@dataclass(frozen=True)
class Times:
    """The seconds that a client has.

    Attributes:
        head: To send a request line and headers, or to complete gRPC's handshake.
        request: To send a whole request, from its first byte on.
        answer: To take what was written of an answer.
        idle: Between requests, and before the first one.
        health: To send the head of a request on a connection beyond the limit.
        linger: To read a refusal.
        call: Of a gRPC connection's life, after which it takes no new calls.
    """

    head: float = 10
    request: float = 60
    answer: float = 60
    idle: float = 30
    health: float = 2
    linger: float = 1
    call: float = 300


DEFAULT_TIMES = Times()


@dataclass(frozen=True)
class ConnectionLimits:
    """The most connections at once: HTTP's, those beyond that are kept for health and metrics, gRPC's."""

    http: int
    health: int
    grpc: int

    @classmethod
    def within(cls, open_files: int) -> ConnectionLimits:
        """The limits of a process that may open so many files; each connection is one."""
        free = max(open_files - _OWN_FILES - _HEALTH_CONNECTIONS, 2)
        each = min(_MOST_CONNECTIONS, free // 2)
        return cls(each, _HEALTH_CONNECTIONS, each)


def allow_open_files() -> int:
    """Raise this process's soft limit on open files as far as its connections need; return the limit."""
    wanted = 2 * _MOST_CONNECTIONS + _HEALTH_CONNECTIONS + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
