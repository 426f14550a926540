"""A candidate in its own process, which runs on request: the messages, and the owner's side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from ccr_deploy.backends.options import BackendOptions
from ccr_deploy.benchmarking.answers import Answer
from ccr_deploy.benchmarking.inputs import Items
from ccr_deploy.benchmarking.results import GpuState, WarmUp
from ccr_deploy.core.child_process import ChildProcess, ProcessEndedError
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.generic]

LOADING_SECONDS = 900
"""Time limit of loading; `torch.compile` tunes for minutes."""
ROUND_SECONDS = 600
WARM_UP_RUNS = 2
GPU_WARM_UP_SECONDS = 0.3
"""Shortest warm-up of a round on a GPU, whose clocks rise with the load for some tenths of a second."""
MAX_DEVICE_RUNS = 20
"""Limit for the runs of a round that are measured by CUDA events."""


class Candidate(Record, frozen=True):
    """Engines, each with its precision, that run in sequence, each on the output of the one before.

    A candidate that `is_optional` is left out if it cannot be loaded; otherwise the benchmark fails.
    """

    name: str
    is_target: bool
    options: BackendOptions
    engines: tuple[tuple[Path, EnginePrecision], ...]
    is_optional: bool = False


class Start(Record, frozen=True):
    """Message to a process: the candidate to load, the batch of a run, and the items of the inputs.

    Without `items`, the inputs are random.
    """

    candidate: Candidate
    batch: int
    items: Items | None = None


class WarmUpRequest(Record, frozen=True, tag=True):
    """Message to a process: run until the rate is steady. The answer is `Warm`."""


class RoundRequest(Record, frozen=True, tag=True):
    """Message to a process: run a round of a number of runs. The answer is `RoundSamples`."""

    runs: int


class HashRequest(Record, frozen=True, tag=True):
    """Message to a process: hash the engines' files once more. The answer is `Hashes`."""


Request = WarmUpRequest | RoundRequest | HashRequest


class Loaded(Record, frozen=True, tag=True):
    """Message of a process: the engines are loaded and warm.

    `version` is that of the backend's library, `engines_sha256` the SHA-256 of the bytes of each engine: its
    file was the same before and after it was loaded.
    """

    version: str
    engines_sha256: tuple[str, ...]


class Warm(Record, frozen=True, tag=True):
    """Message of a process: the warm-up is over."""

    warm_up: WarmUp


class Hashes(Record, frozen=True, tag=True):
    """Message of a process: the SHA-256 of each engine's file, as it is now."""

    engines_sha256: tuple[str, ...]


class RoundSamples(Record, frozen=True, tag=True):
    """Message of a process: the samples of one round in nanoseconds, and the peak memory so far.

    `inputs` has a letter for each sample, as `inputs_of_round` returns them, and `answers` are the outputs
    for the repeated input. `device_milliseconds` are samples of other runs, measured by CUDA events. The two
    without copies are of runs whose inputs and outputs stay on the GPU, by the clock and by CUDA events.
    `gpu` are the GPU's states after the warm-up and at the end. All are empty if they could not be measured.
    """

    nanoseconds: tuple[int, ...]
    peak_memory_mib: float
    device_memory_mib: float | None
    device_milliseconds: tuple[float, ...] = ()
    gpu: tuple[GpuState, ...] = ()
    inputs: str = ""
    answers: tuple[Answer, ...] = ()
    without_copies_milliseconds: tuple[float, ...] = ()
    device_without_copies_milliseconds: tuple[float, ...] = ()


class Failed(Record, frozen=True, tag=True):
    """Message of a process: the engines could not be loaded or run; `reason` is one line."""

    reason: str


_Answer = TypeVar("_Answer", Loaded, Warm, RoundSamples, Hashes)


class Worker(ChildProcess):
    """The process of a candidate. A context manager, so that the process ends with the benchmark."""

    module: ClassVar[str] = "ccr_deploy.benchmarking"
    """The module that the process runs."""

    def __init__(self, candidate: Candidate, batch: int, items: Items | None = None) -> None:
        """Start the process, which loads the candidate.

        Args:
            candidate: the candidate.
            batch: items of a run.
            items: the items of the inputs; None for random ones.
        """
        super().__init__(self.module)
        self.candidate = candidate
        self.send(Start(candidate, batch, items))

    def wait_until_loaded(self) -> Loaded:
        """Wait until the engines are loaded and warm.

        Raises:
            EngineError: if the engines cannot be loaded or run.
        """
        return self._answer(Loaded, LOADING_SECONDS)

    def warm_up(self) -> WarmUp:
        """Run the candidate until its rate is steady, or until a time limit.

        Raises:
            EngineError: if a run fails or the process ends.
        """
        self.send(WarmUpRequest())
        return self._answer(Warm, ROUND_SECONDS).warm_up

    def run_round(self, runs: int) -> RoundSamples:
        """Run the candidate `runs` times, after a warm-up that is not timed.

        Raises:
            EngineError: if a run fails or the process ends.
        """
        self.send(RoundRequest(runs))
        return self._answer(RoundSamples, ROUND_SECONDS)

    def check_unchanged(self, loaded: Loaded) -> None:
        """Compare the engines' files with the bytes that were loaded.

        Raises:
            EngineError: if a file was replaced or changed since then, or the process ends.
        """
        self.send(HashRequest())
        found = self._answer(Hashes, LOADING_SECONDS).engines_sha256
        for (path, _), before, after in zip(
            self.candidate.engines, loaded.engines_sha256, found, strict=True
        ):
            if before != after:
                problem = changed_while("it was timed", path, before, after)
                raise EngineError(f"{self.candidate.name}: {problem}")

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


def changed_while(phase: str, engine: Path, before: str, after: str) -> str:
    """Return the message for an engine that was replaced or changed.

    Args:
        phase: what happened to it meanwhile.
        engine: its file.
        before: its SHA-256 at first.
        after: its SHA-256 later.
    """
    return (
        f"{engine}: replaced or changed while {phase}: its SHA-256 was {before[:12]}…, is now {after[:12]}…: "
        "run the command again"
    )
