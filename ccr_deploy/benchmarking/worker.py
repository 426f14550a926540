"""A candidate in a process of its own, which runs when it is told to."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ccr_deploy.backends.options import BackendOptions
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.core.child_process import ChildProcess, ProcessEndedError, peak_memory_mib
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.printable import printable
from ccr_deploy.core.records import Record
from ccr_deploy.engines.loading import load_engine
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.core.child_process import Owner

LOADING_SECONDS = 900
"""`torch.compile` tunes for minutes."""
ROUND_SECONDS = 600


class Candidate(Record, frozen=True):
    """Engines, each with its precision, that are run one after the other on the outputs of the one before."""

    name: str
    is_target: bool
    options: BackendOptions
    engines: tuple[tuple[Path, EnginePrecision], ...]


class Start(Record, frozen=True):
    """What a process is to load, and how many inputs a run has."""

    candidate: Candidate
    batch: int


class Loaded(Record, frozen=True, tag=True):
    """The engines are loaded and warm, by this version of the backend's library."""

    version: str


class RoundSamples(Record, frozen=True, tag=True):
    """A candidate's raw samples of one round in nanoseconds, and its process's peak memory so far."""

    nanoseconds: tuple[int, ...]
    peak_memory_mib: float
    device_memory_mib: float | None


class Failed(Record, frozen=True, tag=True):
    """The engines could not be loaded or run; why, in one line."""

    reason: str


_Answer = TypeVar("_Answer", Loaded, RoundSamples)


class Worker(ChildProcess):
    """A candidate's process. A context manager, so that none outlives the benchmark."""

    def __init__(self, candidate: Candidate, batch: int) -> None:
        super().__init__("ccr_deploy.benchmarking")
        self.candidate = candidate
        self.send(Start(candidate, batch))

    def wait_until_loaded(self) -> str:
        """Waits for the engines to be loaded and warm, and returns the backend's version.

        Raises:
            EngineError: they could not be loaded or run.
        """
        return self._answer(Loaded, LOADING_SECONDS).version

    def run_round(self, runs: int) -> RoundSamples:
        """Lets the candidate run `runs` times, after two runs that do not count.

        Raises:
            EngineError: it failed or its process ended.
        """
        self.send(runs)
        return self._answer(RoundSamples, ROUND_SECONDS)

    def send(self, message: object) -> None:
        """Sends a message.

        Raises:
            EngineError: the process ended; the message names the candidate.
        """
        try:
            super().send(message)
        except ProcessEndedError as error:
            raise EngineError(f"{self.candidate.name}: {error}") from None

    def _answer(self, kind: type[_Answer], seconds: float) -> _Answer:
        name = self.candidate.name
        try:
            answer: _Answer | Failed = self.receive(kind | Failed, seconds)
        except TimeoutError:
            raise EngineError(f"{name}: gave no answer within {seconds:.0f} s") from None
        except ProcessEndedError as error:
            raise EngineError(f"{name}: {error}") from None
        if isinstance(answer, Failed):
            raise EngineError(f"{name}: {answer.reason}")
        return answer


def serve(owner: Owner) -> None:
    """Load the engines, then answer each requested number of runs with its samples, until the pipe closes."""
    try:
        start: Start = owner.receive(Start)
        backend = make_backend(start.candidate.options)
        with ExitStack() as stack:
            runners = [
                stack.enter_context(load_engine(backend, path, precision))
                for path, precision in start.candidate.engines
            ]
            (spec,) = runners[0].inputs
            shape = (start.batch, *(size or start.batch for size in spec.shape[1:]))
            feed = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

            def run() -> int:
                array: npt.NDArray[np.generic] = feed
                started = time.perf_counter_ns()
                for runner in runners:
                    (name,) = (spec.name for spec in runner.inputs)
                    (array,) = runner.infer({name: array}).values()
                return time.perf_counter_ns() - started

            def device_memory_mib() -> float | None:
                held = [mib for runner in runners if (mib := runner.device_memory_mib) is not None]
                return sum(held) if held else None

            run()
            owner.send(Loaded(backend.version))
            while True:
                runs: int = owner.receive(int)
                run(), run()
                samples = tuple(run() for _ in range(runs))
                owner.send(RoundSamples(samples, peak_memory_mib(), device_memory_mib()))
    except (EOFError, ConnectionError):
        pass  # the parent has gone: nobody is left to answer
    except Exception as error:  # whatever happens is the parent's to tell
        owner.send(Failed(printable(str(error))))
