"""The process of a candidate: loads its engines, then answers the requests of its `Worker`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ccr_deploy.backends.device_timer import DeviceTimer
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.benchmarking.answers import grouped
from ccr_deploy.benchmarking.gpu_sensors import open_sensors
from ccr_deploy.benchmarking.inputs import REPEATED, InputSource, inputs_of_round, random_items
from ccr_deploy.benchmarking.timed_runs import only_output, run_in_sequence, time_round
from ccr_deploy.benchmarking.warm_up import warm_up
from ccr_deploy.benchmarking.worker import (
    GPU_WARM_UP_SECONDS,
    MAX_DEVICE_RUNS,
    WARM_UP_RUNS,
    Failed,
    Hashes,
    HashRequest,
    Loaded,
    Request,
    RoundRequest,
    RoundSamples,
    Start,
    Warm,
    WarmUpRequest,
    changed_while,
)
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.core.child_process import peak_memory_mib
from ccr_deploy.core.gpu import cuda_runtime
from ccr_deploy.core.printable import printable, reason_of
from ccr_deploy.engines.loading import load_engine
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from ccr_deploy.backends.runner import TensorSpec
    from ccr_deploy.benchmarking.results import GpuState, WarmUp
    from ccr_deploy.core.child_process import Owner

    Array = npt.NDArray[np.generic]


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
        self._memory: tuple[float, float | None]
        self._on_gpu: list[Callable[[], None]] | None = None
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
        times, repeated = time_round(self._infer, self._source, inputs_of_round(number, runs), number)
        after = self._gpu_state()
        if self._on_gpu is None:  # what is prepared for runs without copies is not the engines' own memory
            self._memory = peak_memory_mib(), self._device_memory_mib()
        without_copies = self._without_copies(min(runs, MAX_DEVICE_RUNS))
        on_device = self._device_samples(min(runs, MAX_DEVICE_RUNS))
        return RoundSamples(
            times.nanoseconds,
            *self._memory,
            on_device,
            (*before, *after),
            times.inputs,
            grouped((self._source.items(number), outputs) for outputs in repeated),
            *without_copies,
        )

    def _run(self) -> int:
        """Run the engines in sequence on the same input; return the time in nanoseconds."""
        started = time.perf_counter_ns()
        self._infer(self._feed)
        return time.perf_counter_ns() - started

    def _infer(self, array: Array) -> tuple[Array, ...]:
        """Run the engines in sequence; return the output of each."""
        return run_in_sequence(self._runners, array)

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
            array = only_output(runner, array)
            runner.device_timer = None
            parts.append(self._timer.take_milliseconds())
        measured = [part for part in parts if part is not None]
        return sum(measured) if len(measured) == len(parts) else None

    def _without_copies(self, runs: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the times of runs whose inputs and outputs stay on the GPU, in ms: wall clock and events."""
        if self._timer is None:
            return (), ()
        if self._on_gpu is None:
            self._on_gpu = self._prepared_on_gpu()
        on_gpu = self._on_gpu
        if not on_gpu:
            return (), ()
        wall = tuple(_wall_milliseconds(on_gpu) for _ in range(runs))
        device = [self._event_milliseconds(on_gpu) for _ in range(runs)]
        return wall, () if None in device else tuple(time for time in device if time is not None)

    def _prepared_on_gpu(self) -> list[Callable[[], None]]:
        """Return functions that run the engines without copies; none if an engine cannot run so."""
        array: Array = self._feed
        found: list[Callable[[], None] | None] = []
        for runner in self._runners:
            (spec,) = runner.inputs
            feeds = {spec.name: array}
            array = only_output(runner, array)
            found.append(runner.on_device(feeds))
        on_gpu = [run for run in found if run is not None]
        return on_gpu if len(on_gpu) == len(found) else []

    def _event_milliseconds(self, on_gpu: Sequence[Callable[[], None]]) -> float | None:
        """Run the engines on the GPU; return the sum of their times by CUDA events in ms."""
        assert self._timer is not None
        parts = []
        for runner, run in zip(self._runners, on_gpu, strict=True):
            runner.device_timer = self._timer
            run()
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
        owner.send(Failed(printable(str(error) or reason_of(error))))


def _answered(candidate: LoadedCandidate, request: Request) -> Warm | RoundSamples | Hashes:
    match request:
        case WarmUpRequest():
            return Warm(candidate.warm_up())
        case RoundRequest(runs):
            return candidate.round(runs)
        case HashRequest():
            return Hashes(candidate.hashes())


def _wall_milliseconds(runs: Sequence[Callable[[], None]]) -> float:
    started = time.perf_counter_ns()
    for run in runs:
        run()
    return (time.perf_counter_ns() - started) / 1e6


def _item_shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size or 1 for size in spec.shape[1:])
