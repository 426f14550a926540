"""Processes that tests and benchmarks start: Ctrl-C reaches them, and in the end nothing of them runs."""

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
"""Time for what takes seconds on an idle machine. Nothing waits as long unless something is wrong."""


@contextlib.contextmanager
def hearing_ctrl_c() -> Iterator[None]:
    """Handle SIGINT as in the foreground, here and in the processes that are started meanwhile.

    A shell makes its background jobs ignore SIGINT, and a process inherits what its parent ignores.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def started(command: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[str]]:  # noqa: ANN401
    """Start a command that hears Ctrl-C, and end it at the latest when the context ends.

    It leads a session of its own, which is ended whole: what the command started too.

    Args:
        command: The program and its arguments.
        options: What else `subprocess.Popen` takes.
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
    """Kill a process that was started in a session of its own, with what else is in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def heirs(name: str, value: str) -> list[int]:
    """Find the processes that were started with this environment variable, wherever they belong now."""
    entry = f"{name}={value}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if entry in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def free_ports(count: int) -> list[int]:
    """Find ports of 127.0.0.1 that a server can listen on a moment later.

    They lie below those that systems give to clients, which another test might get in that moment.
    """
    found: set[int] = set()
    while len(found) < count:
        port = 10_000 + secrets.randbelow(20_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)
