"""A competitor in a process of its own, which runs when it is told to."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends import backend
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from types import TracebackType

    import numpy.typing as npt

    from ccr_deploy.precisions import EnginePrecision
    from ccr_deploy.target import Options

LOADING_SECONDS = 300
TURN_SECONDS = 600


@dataclass(frozen=True)
class Competitor:
    """Engines, each with its precision, that are run one after the other on the outputs of the one before."""

    name: str
    is_target: bool
    backend: str
    options: Options
    engines: tuple[tuple[Path, EnginePrecision], ...]


@dataclass(frozen=True)
class Turn:
    """One turn's raw samples in nanoseconds, and the process's peak memory so far."""

    nanoseconds: tuple[int, ...]
    peak_memory_mib: float


class Worker:
    """A competitor's process. A context manager, so that none outlives the benchmark."""

    def __init__(self, competitor: Competitor, batch: int) -> None:
        self.competitor = competitor
        self._connection, remote = Pipe()
        # Not multiprocessing's own processes: they import the caller's main module, and what that
        # imports would count as the competitor's memory.
        descriptor = remote.fileno()
        command = [sys.executable, "-m", "ccr_deploy.benchmarking", str(descriptor)]
        # In a session of its own, Ctrl-C is the parent's to handle: it closes the pipe, which ends this.
        self._process = subprocess.Popen(command, pass_fds=[descriptor], start_new_session=True)
        remote.close()
        self._send((competitor, batch))

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._connection.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_until_loaded(self) -> str:
        """Waits for the engines to be loaded and warm, and returns the backend's version.

        Raises:
            EngineError: they could not be loaded or run.
        """
        return str(self._answer(LOADING_SECONDS))

    def take_turn(self, runs: int) -> Turn:
        """Lets the competitor run `runs` times, after two runs that do not count.

        Raises:
            EngineError: it failed or its process ended.
        """
        self._send(runs)
        turn = self._answer(TURN_SECONDS)
        assert isinstance(turn, Turn)
        return turn

    def _send(self, message: object) -> None:
        try:
            self._connection.send(message)
        except OSError:
            raise self._ended() from None

    def _ended(self) -> EngineError:
        try:
            status: int | str = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            status = "none yet"
        return EngineError(f"{self.competitor.name}: its process ended (exit status {status})")

    def _answer(self, seconds: float) -> object:
        name = self.competitor.name
        try:
            if not self._connection.poll(seconds):
                raise EngineError(f"{name}: gave no answer within {seconds:.0f} s")
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if isinstance(answer, Exception):
            raise EngineError(f"{name}: {answer}") from answer
        return answer


def serve(connection: Connection[object, Any]) -> None:
    """The process: loads the engines, then answers each number of runs by a turn, until the pipe closes."""
    try:
        competitor, batch = connection.recv()
        library = backend(competitor.backend)
        with ExitStack() as stack:
            runners = [
                stack.enter_context(library.load(path, competitor.options, precision))
                for path, precision in competitor.engines
            ]
            (spec,) = runners[0].inputs
            shape = (batch, *(size or batch for size in spec.shape[1:]))
            feed = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

            def run() -> int:
                array: npt.NDArray[np.generic] = feed
                started = time.perf_counter_ns()
                for runner in runners:
                    (name,) = (spec.name for spec in runner.inputs)
                    (array,) = runner.infer({name: array}).values()
                return time.perf_counter_ns() - started

            run()
            connection.send(library.version)
            while True:
                runs = connection.recv()
                run(), run()
                connection.send(Turn(tuple(run() for _ in range(runs)), peak_memory_mib()))
    except (EOFError, ConnectionError):
        pass  # the parent has gone: nobody is left to answer
    except Exception as error:  # whatever happens is the parent's to tell
        connection.send(error)


def peak_memory_mib() -> float:
    """The process's own peak; getrusage's, on Linux, is at least that of the process it was forked from."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kibibytes) / 2**10
