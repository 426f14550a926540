"""A Python module in a process of its own, which is talked to over a pipe and never outlives its owner."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccr_deploy.core.messages import pack, unpack
from ccr_deploy.errors import CcrDeployError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


class ProcessEndedError(CcrDeployError):
    """A process ended before it answered; the message says how."""


class ChildProcess:
    """``python -m MODULE DESCRIPTOR``, at the other end of a pipe. A context manager.

    Not multiprocessing's own processes: they import the caller's main module, and what that imports would
    count as the child's memory. In a session of its own, Ctrl-C is the owner's to handle: leaving the context
    closes the pipe, and ends the child where that does not.
    """

    def __init__(
        self,
        module: str,
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        patience_seconds: float = 5,
    ) -> None:
        """Starts `module`; what it prints goes to the file `log`, where one is given.

        `environment` is added to this process's own. At the end of the context the child has
        `patience_seconds` to notice that the pipe was closed.
        """
        self._patience_seconds = patience_seconds
        self._connection, remote = Pipe()
        command = [sys.executable, "-m", module, str(remote.fileno())]
        with ExitStack() as stack:
            stack.callback(remote.close)
            output = stack.enter_context(log.open("wb")) if log else None
            self._process = subprocess.Popen(
                command,
                pass_fds=[remote.fileno()],
                start_new_session=True,
                env={**os.environ, **(environment or {})},
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        try:
            self._process.wait(timeout=self._patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def send(self, message: object) -> None:
        """Sends a message as `ccr_deploy.core.messages` packs it.

        Raises:
            ProcessEndedError: nobody is there to read it.
        """
        try:
            self._connection.send_bytes(pack(message))
        except OSError:
            raise self._ended() from None

    def receive(self, kind: Any, seconds: float | None = None) -> Any:  # noqa: ANN401 -- of any kind
        """What the child sends next, of the type `kind`, waited for at most `seconds`.

        Raises:
            ProcessEndedError: the child ended instead.
            TimeoutError: it sent nothing in time.
        """
        try:
            answered = self._connection.poll(seconds)
            message = self._connection.recv_bytes() if answered else b""
        except (EOFError, OSError):  # an OSError of no special kind if it ended within a message
            raise self._ended() from None
        if not answered:
            raise TimeoutError
        return unpack(kind, message)

    def _ended(self) -> ProcessEndedError:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return ProcessEndedError("its process closed the pipe")
        if status < 0:
            return ProcessEndedError(f"its process was ended by {signal.Signals(-status).name}")
        return ProcessEndedError(f"its process ended (exit status {status})")


class Owner:
    """The owner of this process, in a module that `ChildProcess` started."""

    def __init__(self) -> None:
        self._connection: Connection[Any, Any] = Connection(int(sys.argv[1]))

    def send(self, message: object) -> None:
        """Sends a message as `ccr_deploy.core.messages` packs it.

        Raises:
            OSError: the owner is gone.
        """
        self._connection.send_bytes(pack(message))

    def receive(self, kind: Any) -> Any:  # noqa: ANN401 -- of any kind
        """What the owner sends next, of the type `kind`.

        Raises:
            EOFError, OSError: the owner is gone.
        """
        return unpack(kind, self._connection.recv_bytes())

    def exit_with_owner(self) -> None:
        """Ends this process as soon as its owner is gone, whatever it does then; the owner sends nothing."""

        def watch() -> None:
            with suppress(EOFError, OSError):
                self._connection.recv_bytes()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def peak_memory_mib() -> float:
    """This process's own peak; getrusage's, on Linux, is at least that of the process it was forked from."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kibibytes) / 2**10
