"""Limits on clients: number of connections, timeouts, and size of a request's head."""

from __future__ import annotations

import resource
from dataclasses import dataclass

MAX_HEAD_BYTES = 16 * 1024
"""Limit for the request line and headers, for the URL, for chunk framing, and for gRPC metadata."""
ACCEPTED_AT_ONCE = 16
"""Connections that are accepted in one iteration of the event loop."""
_HEALTH_CONNECTIONS = 4 * ACCEPTED_AT_ONCE
"""Enough that a health check has sent its request before this many newer connections evict its own."""
_MAX_CONNECTIONS = 1000
_OWN_FILES = 128
"""File descriptors of engines, GPU drivers, libraries, listeners, and connections not yet counted."""


@dataclass(frozen=True)
class Times:
    """Timeouts for clients, in seconds.

    Attributes:
        head: for the request line and headers, or for gRPC's handshake.
        request: for the whole request, counted from its first byte.
        answer: for the client to read a response that fills the send buffer.
        idle: between requests, and before the first one.
        health: for the request's head on a connection beyond the limit.
        linger: for the client to read an error response before the connection is closed.
        call: maximum age of a gRPC connection; it accepts no new calls after that.
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
    """Maximum numbers of open connections.

    Attributes:
        http: HTTP connections for any request.
        health: HTTP connections beyond `http`, for health and metrics only.
        grpc: gRPC connections.
    """

    http: int
    health: int
    grpc: int

    @classmethod
    def within(cls, open_files: int) -> ConnectionLimits:
        """Return the limits for a process that may have `open_files` open files; a connection takes one."""
        free = max(open_files - _OWN_FILES - _HEALTH_CONNECTIONS, 2)
        each = min(_MAX_CONNECTIONS, free // 2)
        return cls(each, _HEALTH_CONNECTIONS, each)


def allow_open_files() -> int:
    """Raise this process's soft limit on open files to what its connections need; return the new limit."""
    wanted = 2 * _MAX_CONNECTIONS + _HEALTH_CONNECTIONS + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
