"""A candidate in its own process, which runs on request."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from ccr_deploy.backends.device_timer import DeviceTimer
from ccr_deploy.backends.options import BackendOptions
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.benchmarking.answers import Answer, grouped
from ccr_deploy.benchmarking.gpu_sensors import open_sensors
from ccr_deploy.benchmarking.inputs import REPEATED, InputSource, Items, kinds_of_round, random_items
from ccr_deploy.benchmarking.results import GpuState, WarmUp
from ccr_deploy.benchmarking.warm_up import warm_up
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.core.child_process import ChildProcess, ProcessEndedError, peak_memory_mib
from ccr_deploy.core.gpu import cuda_runtime
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.printable import printable
from ccr_deploy.core.records import Record
from ccr_deploy.engines.loading import load_engine
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner, TensorSpec
    from ccr_deploy.core.child_process import Owner

    Array = npt.NDArray[np.generic]

LOADING_SECONDS = 900
"""Time limit of loading; `torch.compile` tunes for minutes."""
ROUND_SECONDS = 600
WARM_UP_RUNS = 2
GPU_WARM_UP_SECONDS = 0.3
"""Shortest warm-up of a round on a GPU, whose clocks rise with the load for some tenths of a second."""
MAX_DEVICE_RUNS = 20
"""Limit for the runs of a round that are measured by CUDA events."""
_PREPARED_BYTES = 16 << 20
"""Inputs that are made at a time, between runs."""


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

    `inputs` has a letter for each sample, as `kinds_of_round` returns them, and `answers` are the outputs for
    the repeated input. `device_milliseconds` are samples of other runs, measured by CUDA events. `gpu` are
    the GPU's states after the warm-up and at the end. Both are empty if they could not be measured.
    """

    nanoseconds: tuple[int, ...]
    peak_memory_mib: float
    device_memory_mib: float | None
    device_milliseconds: tuple[float, ...] = ()
    gpu: tuple[GpuState, ...] = ()
    inputs: str = ""
    answers: tuple[Answer, ...] = ()


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
        self._candidate = start.candidate
        backend = make_backend(self._candidate.options)
        self._uses_gpu = self._candidate.options.uses_gpu
        paths = [path for path, _ in self._candidate.engines]
        before = self.hashes() if all(path.is_file() for path in paths) else ()  # or load_engine names it
        self._runners = [
            stack.enter_context(load_engine(backend, path, precision))
            for path, precision in self._candidate.engines
        ]
        self.loaded = Loaded(backend.version, self.hashes())
        for path, first, second in zip(paths, before, self.loaded.engines_sha256, strict=True):
            if first != second:  # it is not known which of the two was loaded
                raise EngineError(changed_while("it was loaded", path, first, second))
        (spec,) = self._runners[0].inputs
        items = start.items.array() if start.items else random_items(_item_shape(spec))
        self._source = InputSource(items, start.batch)
        self._feed: Array = self._source.make(REPEATED, 0)
        self._rounds = 0
        self._sensors = open_sensors() if self._uses_gpu else None
        self._timer = DeviceTimer(cuda_runtime()) if self._uses_gpu else None
        if self._timer:
            stack.callback(self._timer.close)
        self._run()

    def hashes(self) -> tuple[str, ...]:
        """Return the SHA-256 of each engine's file."""
        return tuple(sha256_of(path) for path, _ in self._candidate.engines)

    def warm_up(self) -> WarmUp:
        """Run until the rate is steady, or until a time limit."""
        return warm_up(self._run, GPU_WARM_UP_SECONDS if self._uses_gpu else 0.0)

    def round(self, runs: int) -> RoundSamples:
        """Warm up, and run `runs` times; on a GPU some more times, measured on the GPU."""
        number, self._rounds = self._rounds, self._rounds + 1
        self._feed = self._source.make(REPEATED, number)
        self._raise_clocks()
        before = self._gpu_state()
        for _ in range(WARM_UP_RUNS):  # reading the sensors takes a while
            self._run()
        kinds = kinds_of_round(number, runs)
        samples, repeated = self._timed_runs(kinds, number)
        after = self._gpu_state()
        on_device = self._device_samples(min(runs, MAX_DEVICE_RUNS))
        return RoundSamples(
            samples,
            peak_memory_mib(),
            self._device_memory_mib(),
            on_device,
            (*before, *after),
            kinds,
            grouped(self._source.first_item(number), repeated),
        )

    def _timed_runs(self, kinds: str, number: int) -> tuple[tuple[int, ...], list[tuple[Array, ...]]]:
        """Run inputs of some kinds; return the times in nanoseconds, and the outputs for repeated ones."""
        samples: list[int] = []
        repeated: list[tuple[Array, ...]] = []
        at_once = max(1, _PREPARED_BYTES // self._source.batch_bytes)
        for start in range(0, len(kinds), at_once):
            part = kinds[start : start + at_once]
            batches = [self._source.make(kind, number) for kind in part]  # before the clock starts
            for kind, batch in zip(part, batches, strict=True):
                nanoseconds, outputs = self._timed(batch)
                samples.append(nanoseconds)
                if kind == REPEATED:
                    repeated.append(outputs)
        return tuple(samples), repeated

    def _run(self) -> int:
        """Run the engines in sequence on the same input; return the time in nanoseconds."""
        return self._timed(self._feed)[0]

    def _timed(self, array: Array) -> tuple[int, tuple[Array, ...]]:
        """Run the engines in sequence; return the time in nanoseconds, and the output of each."""
        outputs = []
        started = time.perf_counter_ns()
        for runner in self._runners:
            array = _inferred(runner, array)
            outputs.append(array)
        return time.perf_counter_ns() - started, tuple(outputs)

    def _raise_clocks(self) -> None:
        """Run for some tenths of a second on a GPU, whose clocks rise with the load."""
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
        array: Array = self._feed
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
                owner.send(_answered(candidate, owner.receive(Request)))
    except (EOFError, ConnectionError):
        pass  # the parent process ended
    except Exception as error:  # the parent reports it
        owner.send(Failed(printable(str(error))))


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


def _answered(candidate: LoadedCandidate, request: Request) -> Warm | RoundSamples | Hashes:
    match request:
        case WarmUpRequest():
            return Warm(candidate.warm_up())
        case RoundRequest(runs):
            return candidate.round(runs)
        case HashRequest():
            return Hashes(candidate.hashes())


def _item_shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size or 1 for size in spec.shape[1:])


def _inferred(runner: Runner, array: Array) -> Array:
    """Return the only output of a runner for its only input."""
    (spec,) = runner.inputs
    (output,) = runner.infer({spec.name: array}).values()
    return output
