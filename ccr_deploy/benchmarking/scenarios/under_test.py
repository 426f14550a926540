"""The system under test: engines in memory, and the pool of inputs that queries name by their indices."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np

from ccr_deploy.backends.registry import make_backend
from ccr_deploy.benchmarking.answers import grouped, one_by_one
from ccr_deploy.benchmarking.inputs import REPEATED, InputSource, inputs_of_round
from ccr_deploy.benchmarking.scenarios.answer_sample import AnswerSample
from ccr_deploy.benchmarking.timed_runs import only_output, run_in_sequence, time_round
from ccr_deploy.engines.loading import load_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import ExitStack

    import numpy.typing as npt

    from ccr_deploy.benchmarking.answers import Answer
    from ccr_deploy.benchmarking.scenario_results import ScenarioSettings
    from ccr_deploy.benchmarking.scenarios.messages import Engines
    from ccr_deploy.benchmarking.timed_runs import InputTimes
    from ccr_deploy.core.scenarios import Scenario

    Rows = npt.NDArray[np.generic]

WARM_UP_SECONDS = 0.5
WARM_UP_RUNS = 3
ROUNDS = 8
"""Rounds of repeated and fresh inputs."""
ROUND_SECONDS = 0.1
RUNS_PER_ROUND = (4, 100)
"""Limits for the number of runs of a round: half of them repeat one input."""

_Entry = TypeVar("_Entry")


class SystemUnderTest:
    """Engines that run in sequence, each on the output of the one before. For one thread at a time."""

    def __init__(self, engines: Engines, batch: int, stack: ExitStack) -> None:
        """Load the engines, and compute the pool's inputs.

        Args:
            engines: the engines and the images of the pool.
            batch: largest number of samples in one run.
            stack: releases the engines when it unwinds.

        Raises:
            EngineError: if an engine cannot be loaded or run, or is not the one with its SHA-256.
        """
        backend = make_backend(engines.options)
        self.version = backend.version
        self.batch = batch
        self._pool: Rows = np.frombuffer(engines.images, np.uint8).reshape(engines.image_shape)
        for path, precision, sha256 in engines.inputs_by:
            with load_engine(backend, path, precision, engine_sha256=sha256) as runner:
                rows = [
                    only_output(runner, self._pool[index : index + 1]) for index in range(len(self._pool))
                ]
            self._pool = np.concatenate(rows)
        self._runners = [
            stack.enter_context(load_engine(backend, path, precision, engine_sha256=sha256))
            for path, precision, sha256 in engines.engines
        ]
        self._sample = AnswerSample()

    def run(self, indices: Sequence[int]) -> None:
        """Run the engines once on the inputs with these indices, up to `batch`."""
        rows = self._pool[indices[0] : indices[0] + 1] if len(indices) == 1 else self._pool[[*indices]]
        self._sample.add(indices, self._infer(rows))

    def run_all(self, indices: Sequence[int]) -> None:
        """Run the engines on any number of inputs, in batches."""
        for batch in in_batches(indices, self.batch):
            self.run(batch)

    def pool_answers(self) -> tuple[Answer, ...]:
        """Return the outputs for all inputs of the pool, in batches."""
        batches = in_batches(range(len(self._pool)), self.batch)
        return grouped(
            item for batch in batches for item in one_by_one(batch, self._infer(self._pool[[*batch]]))
        )

    def take_answers(self) -> tuple[Answer, ...]:
        """Return the outputs of some runs since the last call, drawn at random."""
        sample, self._sample = self._sample, AnswerSample()
        return sample.answers()

    def time_inputs(self, seconds: float) -> tuple[InputTimes, ...]:
        """Time runs on repeated and fresh inputs, in rounds: both are made from the inputs of the pool.

        A run has one input whatever the batch is: a cache shows as well, and large batches take minutes.

        Args:
            seconds: expected time of a run, in seconds.
        """
        source = InputSource(self._pool.astype(np.uint8, copy=False), 1)
        runs = int(np.clip(round(ROUND_SECONDS / seconds), *RUNS_PER_ROUND))
        found = []
        for number in range(ROUNDS):
            self._infer(source.make(REPEATED, number))  # an engine that caches it would be slow once
            times, _ = time_round(self._infer, source, inputs_of_round(number, runs), number)
            found.append(times)
        return tuple(found)

    def warm_up(self, sizes: Iterable[int]) -> float:
        """Run each number of samples until the engines are warm; return the seconds per sample of the last.

        A backend allocates memory and chooses kernels for each batch size at its first use. The first half of
        the runs does not count.
        """
        seconds = 0.0
        for size in sizes:
            indices = [index % len(self._pool) for index in range(size)]
            end = time.perf_counter() + WARM_UP_SECONDS
            taken: list[float] = []
            while len(taken) < WARM_UP_RUNS or time.perf_counter() < end:
                started = time.perf_counter()
                self.run_all(indices)
                taken.append(time.perf_counter() - started)
            seconds = float(np.mean(taken[len(taken) // 2 :])) / size
        return seconds

    def _infer(self, rows: Rows) -> tuple[Rows, ...]:
        """Run the engines in sequence; return the output of each."""
        return run_in_sequence(self._runners, rows)

    def device_memory_mib(self) -> float | None:
        """Return the GPU memory that the engines hold, in MiB; None on a CPU."""
        held = [mib for runner in self._runners if (mib := runner.device_memory_mib) is not None]
        return sum(held) if held else None


@dataclass(frozen=True)
class Load:
    """A scenario, and the engines that run its queries.

    Args:
        system: the engines, warm.
        scenario: any scenario but *paced*.
        settings: how the queries are issued.
        seconds_per_sample: expected time of one sample, in seconds.
        failed: called if a run fails in another thread than the caller's; it ends the process, which would
            otherwise wait for the end of the schedule.
    """

    system: SystemUnderTest
    scenario: Scenario
    settings: ScenarioSettings
    seconds_per_sample: float
    failed: Callable[[Exception], NoReturn]


@dataclass(frozen=True)
class Arrival:
    """A sample that waits: when it arrived by `time.perf_counter_ns`, its index, and its id in LoadGen."""

    nanoseconds: int
    index: int
    response_id: int = 0


class BatchingQueue:
    """A queue and the thread that runs what waits in it, up to a batch per run, as the local server does."""

    def __init__(self, load: Load, completed: Callable[[Sequence[Arrival]], None]) -> None:
        """Start the thread.

        Args:
            load: the engines, and what is called if a run fails.
            completed: called in the thread with the samples of each run, right after it.
        """
        self._load = load
        self._completed = completed
        self._waiting: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, arrival: Arrival) -> None:
        """Add a sample."""
        self._waiting.put(arrival)

    def close(self) -> None:
        """Run what waits, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            while taken := self._next():
                self._load.system.run([arrival.index for arrival in taken])
                self._completed(taken)
        except Exception as error:  # in a thread, nobody would see it
            self._load.failed(error)

    def _next(self) -> list[Arrival]:
        """Wait for a sample; return as many as one run can take, none at the end."""
        taken: list[Arrival] = []
        first = self._waiting.get()
        while first is not None:
            taken.append(first)
            if len(taken) == self._load.system.batch:
                break
            try:
                first = self._waiting.get_nowait()
            except queue.Empty:
                break
            if first is None:
                self._waiting.put(None)  # for the next call
        return taken


def in_batches(entries: Sequence[_Entry], size: int) -> Iterator[Sequence[_Entry]]:
    """Yield the entries in batches of a size; the last one may be smaller."""
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
