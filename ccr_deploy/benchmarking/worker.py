"""A candidate in its own process, which runs on request."""

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
"""Time limit of loading; `torch.compile` tunes for minutes."""
ROUND_SECONDS = 600


class Candidate(Record, frozen=True):
    """Engines, each with its precision, that run in sequence, each on the output of the one before."""

    name: str
    is_target: bool
    options: BackendOptions
    engines: tuple[tuple[Path, EnginePrecision], ...]


class Start(Record, frozen=True):
    """Message to a process: the candidate to load, and the batch of a run."""

    candidate: Candidate
    batch: int


class Loaded(Record, frozen=True, tag=True):
    """Message of a process: the engines are loaded and warm; `version` is that of the backend's library."""

    version: str


class RoundSamples(Record, frozen=True, tag=True):
    """Message of a process: the samples of one round in nanoseconds, and the peak memory so far."""

    nanoseconds: tuple[int, ...]
    peak_memory_mib: float
    device_memory_mib: float | None


class Failed(Record, frozen=True, tag=True):
    """Message of a process: the engines could not be loaded or run; `reason` is one line."""

    reason: str


_Answer = TypeVar("_Answer", Loaded, RoundSamples)


class Worker(ChildProcess):
    """The process of a candidate. A context manager, so that the process ends with the benchmark."""

    def __init__(self, candidate: Candidate, batch: int) -> None:
        super().__init__("ccr_deploy.benchmarking")
        self.candidate = candidate
        self.send(Start(candidate, batch))

    def wait_until_loaded(self) -> str:
        """Wait until the engines are loaded and warm; return the version of the backend's library.

        Raises:
            EngineError: if the engines cannot be loaded or run.
        """
        return self._answer(Loaded, LOADING_SECONDS).version

    def run_round(self, runs: int) -> RoundSamples:
        """Run the candidate `runs` times, after two runs that are not timed.

        Raises:
            EngineError: if a run fails or the process ends.
        """
        self.send(runs)
        return self._answer(RoundSamples, ROUND_SECONDS)

    def send(self, message: object) -> None:
        """Send a message to the process.

        Raises:
            EngineError: if the process ended; the error names the candidate.
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
            raise EngineError(f"{name}: no response within {seconds:.0f} s") from None
        except ProcessEndedError as error:
            raise EngineError(f"{name}: {error}") from None
        if isinstance(answer, Failed):
            raise EngineError(f"{name}: {answer.reason}")
        return answer


def serve(owner: Owner) -> None:
    """Load the engines, then run as often as requested and send the samples, until the pipe closes."""
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
        pass  # the parent process ended
    except Exception as error:  # the parent reports it
        owner.send(Failed(printable(str(error))))
