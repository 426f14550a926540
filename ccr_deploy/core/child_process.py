"""Run a Python module in a child process that exchanges messages with its owner over a pipe."""

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
    """A child process exited before it answered; the message contains its exit status or signal."""


class ChildProcess:
    """A process ``python -m MODULE DESCRIPTOR`` at the other end of a pipe. A context manager.

    `multiprocessing.Process` is not used because it imports the caller's main module, and the memory of those
    imports would be measured as the child's. The child runs in its own session, so that Ctrl-C reaches only
    the owner. Leaving the context closes the pipe, and kills the child if it does not exit then.
    """

    def __init__(
        self,
        module: str,
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        patience_seconds: float = 5,
    ) -> None:
        """Start the child process.

        Args:
            module: the module to run.
            environment: variables to add to those of this process.
            log: file for the child's stdout and stderr; None inherits them.
            patience_seconds: how long the child may take to exit after the pipe is closed, before it is
                killed.
        """
        self._patience_seconds = patience_seconds
        self._connection, remote = Pipe()
        command = [sys.executable, "-m", module, str(remote.fileno())]
        with ExitStack() as stack:
            stack.callback(remote.close)  # the child has its own copy; ours would hide that it exited
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
        self._connection.close()  # the child reads the end of the pipe and exits
        try:
            self._process.wait(timeout=self._patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def send(self, message: object) -> None:
        """Send a message, packed by `ccr_deploy.core.messages`.

        Raises:
            ProcessEndedError: if the child has exited or closed the pipe.
        """
        try:
            self._connection.send_bytes(pack(message))
        except OSError:
            raise self._ended() from None

    def receive(self, kind: Any, seconds: float | None = None) -> Any:  # noqa: ANN401 -- of any kind
        """Return the child's next message, of the type `kind`.

        Raises:
            ProcessEndedError: if the child exits instead.
            TimeoutError: if no message arrives within `seconds`; None waits without limit.
        """
        try:
            answered = self._connection.poll(seconds)  # recv_bytes itself has no timeout
            message = self._connection.recv_bytes() if answered else b""
        except (EOFError, OSError):  # OSError: the child exited in the middle of a message
            raise self._ended() from None
        if not answered:
            raise TimeoutError
        return unpack(kind, message)

    def _ended(self) -> ProcessEndedError:
        try:
            # The pipe of an exiting process is closed before its status is available.
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return ProcessEndedError("its process closed the pipe")
        if status < 0:
            return ProcessEndedError(f"its process was killed by {signal.Signals(-status).name}")
        return ProcessEndedError(f"its process exited with status {status}")


class Owner:
    """The child's end of the pipe: the connection to the process that started it as a `ChildProcess`."""

    def __init__(self) -> None:
        self._connection: Connection[Any, Any] = Connection(int(sys.argv[1]))

    def send(self, message: object) -> None:
        """Send a message, packed by `ccr_deploy.core.messages`.

        Raises:
            OSError: if the owner has exited or closed the pipe.
        """
        self._connection.send_bytes(pack(message))

    def receive(self, kind: Any) -> Any:  # noqa: ANN401 -- of any kind
        """Return the owner's next message, of the type `kind`.

        Raises:
            EOFError, OSError: if the owner has exited or closed the pipe.
        """
        return unpack(kind, self._connection.recv_bytes())

    def exit_with_owner(self) -> None:
        """Exit this process as soon as its owner exits or closes the pipe, even in the middle of its work.

        The owner must send nothing after this call: a thread waits for the end of the pipe.
        """

        def watch() -> None:
            with suppress(EOFError, OSError):
                self._connection.recv_bytes()
            os._exit(1)  # sys.exit would end only this thread

        threading.Thread(target=watch, daemon=True).start()


def peak_memory_mib() -> float:
    """Return this process's peak resident memory in MiB.

    getrusage is only the fallback: on Linux its value is at least that of the process this one was forked
    from.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kibibytes) / 2**10
