"""A candidate in its own process, which runs on request."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ccr_deploy.backends.device_timer import DeviceTimer
from ccr_deploy.backends.options import BackendOptions
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.benchmarking.gpu_sensors import open_sensors
from ccr_deploy.benchmarking.results import GpuState
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.core.child_process import ChildProcess, ProcessEndedError, peak_memory_mib
from ccr_deploy.core.gpu import cuda_runtime
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.printable import printable
from ccr_deploy.core.records import Record
from ccr_deploy.engines.loading import load_engine
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.core.child_process import Owner

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
    """Message to a process: the candidate to load, and the batch of a run."""

    candidate: Candidate
    batch: int


class Loaded(Record, frozen=True, tag=True):
    """Message of a process: the engines are loaded and warm.

    `version` is that of the backend's library, `engines_sha256` the SHA-256 of each engine's file.
    """

    version: str
    engines_sha256: tuple[str, ...]


class RoundSamples(Record, frozen=True, tag=True):
    """Message of a process: the samples of one round in nanoseconds, and the peak memory so far.

    `device_milliseconds` are samples of other runs, measured by CUDA events. `gpu` are the GPU's states after
    the warm-up and at the end. Both are empty if they could not be measured.
    """

    nanoseconds: tuple[int, ...]
    peak_memory_mib: float
    device_memory_mib: float | None
    device_milliseconds: tuple[float, ...] = ()
    gpu: tuple[GpuState, ...] = ()


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

    def wait_until_loaded(self) -> Loaded:
        """Wait until the engines are loaded and warm.

        Raises:
            EngineError: if the engines cannot be loaded or run.
        """
        return self._answer(Loaded, LOADING_SECONDS)

    def run_round(self, runs: int) -> RoundSamples:
        """Run the candidate `runs` times, after a warm-up that is not timed.

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


class LoadedCandidate:
    """The engines of a candidate in memory, with the inputs of their runs; warm."""

    def __init__(self, start: Start, stack: ExitStack) -> None:
        """Load the engines, and run them once.

        Args:
            start: the candidate and the batch of a run.
            stack: releases the engines when it unwinds.

        Raises:
            EngineError: if an engine cannot be loaded or run.
        """
        candidate = start.candidate
        backend = make_backend(candidate.options)
        self._uses_gpu = candidate.options.uses_gpu
        self._runners = [
            stack.enter_context(load_engine(backend, path, precision))
            for path, precision in candidate.engines
        ]
        hashes = tuple(sha256_of(path) for path, _ in candidate.engines)
        self.loaded = Loaded(backend.version, hashes)
        (spec,) = self._runners[0].inputs
        shape = (start.batch, *(size or start.batch for size in spec.shape[1:]))
        self._feed = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self._sensors = open_sensors() if self._uses_gpu else None
        self._timer = DeviceTimer(cuda_runtime()) if self._uses_gpu else None
        if self._timer:
            stack.callback(self._timer.close)
        self._run()

    def round(self, runs: int) -> RoundSamples:
        """Warm up, and run `runs` times; on a GPU some more times, measured on the GPU."""
        self._warm_up()
        before = self._gpu_state()
        for _ in range(WARM_UP_RUNS):  # reading the sensors takes a while
            self._run()
        samples = tuple(self._run() for _ in range(runs))
        after = self._gpu_state()
        on_device = self._device_samples(min(runs, MAX_DEVICE_RUNS))
        return RoundSamples(
            samples, peak_memory_mib(), self._device_memory_mib(), on_device, (*before, *after)
        )

    def _run(self) -> int:
        """Run the engines in sequence; return the time in nanoseconds."""
        array: npt.NDArray[np.generic] = self._feed
        started = time.perf_counter_ns()
        for runner in self._runners:
            array = _inferred(runner, array)
        return time.perf_counter_ns() - started

    def _warm_up(self) -> None:
        if self._uses_gpu:
            end = time.perf_counter() + GPU_WARM_UP_SECONDS
            while time.perf_counter() < end:
                self._run()

    def _device_samples(self, runs: int) -> tuple[float, ...]:
        """Return the time of each of some runs on the GPU, in ms; none if an engine cannot measure it."""
        samples = [self._device_milliseconds() for _ in range(runs)] if self._timer else []
        return () if None in samples else tuple(sample for sample in samples if sample is not None)

    def _device_milliseconds(self) -> float | None:
        """Run the engines in sequence; return the sum of their times on the GPU in ms."""
        assert self._timer is not None
        array: npt.NDArray[np.generic] = self._feed
        parts = []
        for runner in self._runners:
            runner.device_timer = self._timer
            array = _inferred(runner, array)
            runner.device_timer = None
            parts.append(self._timer.take_milliseconds())
        measured = [part for part in parts if part is not None]
        return sum(measured) if len(measured) == len(parts) else None

    def _device_memory_mib(self) -> float | None:
        held = [mib for runner in self._runners if (mib := runner.device_memory_mib) is not None]
        return sum(held) if held else None

    def _gpu_state(self) -> tuple[GpuState, ...]:
        return (self._sensors.read(),) if self._sensors else ()


def serve(owner: Owner) -> None:
    """Load the engines, then run as often as requested and send the samples, until the pipe closes."""
    try:
        start: Start = owner.receive(Start)
        with ExitStack() as stack:
            candidate = LoadedCandidate(start, stack)
            owner.send(candidate.loaded)
            while True:
                runs: int = owner.receive(int)
                owner.send(candidate.round(runs))
    except (EOFError, ConnectionError):
        pass  # the parent process ended
    except Exception as error:  # the parent reports it
        owner.send(Failed(printable(str(error))))


def _inferred(runner: Runner, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return the only output of a runner for its only input."""
    (spec,) = runner.inputs
    (output,) = runner.infer({spec.name: array}).values()
    return output
