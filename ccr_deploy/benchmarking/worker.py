"""A competitor in a process of its own, which runs when it is told to."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends import backend
from ccr_deploy.core.child_process import ChildProcess, ProcessEndedError, peak_memory_mib
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.targets.options import Options

LOADING_SECONDS = 900
"""`torch.compile` tunes for minutes."""
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
    """One turn's raw samples in nanoseconds, and the process's memory so far: its peak, and the GPU's."""

    nanoseconds: tuple[int, ...]
    peak_memory_mib: float
    device_memory_mib: float | None


class Worker:
    """A competitor's process. A context manager, so that none outlives the benchmark."""

    def __init__(self, competitor: Competitor, batch: int) -> None:
        self.competitor = competitor
        self._process = ChildProcess("ccr_deploy.benchmarking")
        self._send((competitor, batch))

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._process.__exit__(kind, error, trace)

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
            self._process.send(message)
        except ProcessEndedError as error:
            raise EngineError(f"{self.competitor.name}: {error}") from None

    def _answer(self, seconds: float) -> object:
        name = self.competitor.name
        try:
            answer = self._process.receive(seconds)
        except TimeoutError:
            raise EngineError(f"{name}: gave no answer within {seconds:.0f} s") from None
        except ProcessEndedError as error:
            raise EngineError(f"{name}: {error}") from None
        if isinstance(answer, Exception):
            raise EngineError(f"{name}: {answer}") from answer
        return answer


def serve(connection: Connection[object, Any]) -> None:
    """The process: loads the engines, then answers each number of runs by a turn, until the pipe closes."""
    try:
        competitor, batch = connection.recv()
        library = backend(competitor.backend, competitor.options)
        with ExitStack() as stack:
            runners = [
                stack.enter_context(library.load(path, precision)) for path, precision in competitor.engines
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

            def device_memory_mib() -> float | None:
                held = [
                    runner.device_memory_mib for runner in runners if runner.device_memory_mib is not None
                ]
                return sum(held) if held else None

            run()
            connection.send(library.version)
            while True:
                runs = connection.recv()
                run(), run()
                samples = tuple(run() for _ in range(runs))
                connection.send(Turn(samples, peak_memory_mib(), device_memory_mib()))
    except (EOFError, ConnectionError):
        pass  # the parent has gone: nobody is left to answer
    except Exception as error:  # whatever happens is the parent's to tell
        connection.send(error)
