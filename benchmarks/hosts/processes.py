"""Processes that tests and benchmarks start: they receive Ctrl-C, and all of them are ended at the end."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PATIENCE_SECONDS = 300
"""Time limit for steps that take a few seconds on an idle machine; only a failure reaches it."""


@contextlib.contextmanager
def hearing_ctrl_c() -> Iterator[None]:
    """Handle SIGINT as in the foreground, in this process and in those that it starts meanwhile.

    A shell makes its background jobs ignore SIGINT, and a process inherits what its parent ignores.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def started(command: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[str]]:  # noqa: ANN401
    """Start a command that handles Ctrl-C, and kill it when the context ends if it is still running.

    The command runs in a new session, so that the processes that it started are killed too.

    Args:
        command: the program and its arguments.
        options: further arguments of `subprocess.Popen`.
    """
    words = [str(word) for word in command]
    with hearing_ctrl_c():
        process = subprocess.Popen(words, start_new_session=True, text=True, **options)
    with process:
        try:
            yield process
        finally:
            end_session(process)


def end_session(process: subprocess.Popen[Any]) -> None:
    """Kill a process that was started in a new session, with all processes in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def heirs(name: str, value: str) -> list[int]:
    """Return the ids of all processes with this environment variable, whatever their parent is now."""
    entry = f"{name}={value}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if entry in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def free_ports(count: int) -> list[int]:
    """Return free ports of 127.0.0.1 for servers that start soon.

    They are below the range from which systems choose the ports of clients, so that no client gets one
    meanwhile.
    """
    found: set[int] = set()
    while len(found) < count:
        port = 10_000 + secrets.randbelow(20_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)
