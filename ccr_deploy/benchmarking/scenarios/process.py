"""The process of a scenario or a soak: the engines and what issues the queries, without a pipe in between."""

from __future__ import annotations

import math
import os
import time
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from ccr_deploy.benchmarking.gpu_sensors import open_sensors
from ccr_deploy.benchmarking.scenarios import generator
from ccr_deploy.benchmarking.scenarios.loadgen import issue_by_loadgen
from ccr_deploy.benchmarking.scenarios.messages import (
    Failed,
    Finished,
    Interval,
    Measured,
    PacedRounds,
    RunScenario,
    RunSoak,
    Started,
)
from ccr_deploy.benchmarking.scenarios.paced import run_paced
from ccr_deploy.benchmarking.scenarios.under_test import Load, SystemUnderTest
from ccr_deploy.core.child_process import ChildProcess, Owner, ProcessEndedError
from ccr_deploy.core.control_groups import memory_in_use
from ccr_deploy.core.printable import printable, reason_of
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ccr_deploy.benchmarking.gpu_sensors import GpuSensors
    from ccr_deploy.benchmarking.scenario_results import ScenarioSettings
    from ccr_deploy.core.scenarios import Scenario

LOADING_SECONDS = 900
OVERTIME_FACTOR = 10
"""A run may take this many times as long as expected, before its process counts as hanging."""
_POLL_SECONDS = 0.5


class ScenarioProcess(ChildProcess):
    """The process of the engines. A context manager, so that the process ends with the benchmark."""

    module: ClassVar[str] = "ccr_deploy.benchmarking.scenarios"
    """The module that the process runs."""

    def __init__(self, request: RunScenario | RunSoak) -> None:
        super().__init__(self.module)
        self.send(request)

    def started(self) -> Started:
        """Wait until the engines are loaded and warm.

        Raises:
            EngineError: if they cannot be loaded or run.
        """
        return self.answer(Started, LOADING_SECONDS)

    def answer(
        self,
        kind: Any,  # noqa: ANN401 -- a union is not a `type` for mypy
        seconds: float,
        waiting: Callable[[float], None] | None = None,
    ) -> Any:  # noqa: ANN401 -- of the kind
        """Return the next message.

        Args:
            kind: its type, or a union of types.
            seconds: how long to wait at most.
            waiting: called about twice a second with the seconds since the call, to show the progress.

        Raises:
            EngineError: if a run fails, the process ends or does not answer in time.
        """
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < seconds:
            try:
                answer = self.receive(kind | Failed, min(_POLL_SECONDS, seconds))
            except TimeoutError:
                if waiting:
                    waiting(passed)
                continue
            except ProcessEndedError as error:
                raise EngineError(f"the engines: {error}") from None
            if isinstance(answer, Failed):
                raise EngineError(f"the engines: {answer.reason}")
            return answer
        raise EngineError(
            f"the engines: no response within {seconds:.0f} s: choose a smaller --batch, or stop other work "
            "on this machine"
        )


def serve(owner: Owner) -> None:
    """Load the engines, run what the owner requests, and send the result."""
    failed = partial(_fail, owner)
    try:
        request: RunScenario | RunSoak = owner.receive(RunScenario | RunSoak)
        owner.exit_with_owner()
        with ExitStack() as stack:
            system = SystemUnderTest(request.engines, request.batch, stack)
            if isinstance(request, RunScenario):
                owner.send(_scenario(owner, system, request, failed))
            else:
                _soak(owner, system, request)
    except ConnectionError:
        pass  # the owner ended
    except Exception as error:  # the owner reports it
        failed(error)


def _fail(owner: Owner, error: Exception) -> NoReturn:
    """Send an error to the owner, and end this process from whatever thread."""
    try:
        owner.send(Failed(printable(str(error) or reason_of(error))))
    finally:
        os._exit(1)


def _scenario(
    owner: Owner, system: SystemUnderTest, request: RunScenario, failed: Callable[[Exception], NoReturn]
) -> Finished:
    scenario, settings = request.scenario, request.settings
    sizes = run_sizes(scenario, settings, request.batch)
    seconds = _start(owner, system, sizes, lambda seconds: expected_seconds(scenario, settings, seconds))
    measured: Measured | PacedRounds
    if scenario == "paced":
        measured = run_paced(system, settings)
    else:
        load = Load(system, scenario, settings, seconds, failed)
        folder = request.loadgen_folder
        measured = issue_by_loadgen(load, folder) if folder else generator.issue(load)
    return Finished(measured, system.take_answers())


def _start(
    owner: Owner, system: SystemUnderTest, sizes: Sequence[int], expected: Callable[[float], float]
) -> float:
    """Warm the engines up, time repeated and fresh inputs, and announce the run.

    Args:
        owner: the owner of this process.
        system: the engines.
        sizes: numbers of samples that the runs have, the most frequent one last.
        expected: returns how long the run will take, from the time of one sample; both in seconds.

    Returns:
        The time of one sample, in seconds.
    """
    answers = system.pool_answers()
    seconds = system.warm_up(sizes)
    rounds = system.time_inputs(seconds)
    system.take_answers()  # those of the warm-up
    owner.send(Started(system.version, expected(seconds), answers, rounds))
    return seconds


def run_sizes(scenario: Scenario, settings: ScenarioSettings, batch: int) -> list[int]:
    """Return the numbers of samples that the runs of a scenario have, the most frequent one last.

    Args:
        scenario: the scenario.
        settings: the samples of a query.
        batch: largest number of samples in one run.
    """
    if scenario == "server":
        return list(range(1, batch + 1))
    whole = batch if scenario == "offline" else settings.samples_per_query or 1
    return [whole]


def expected_seconds(scenario: Scenario, settings: ScenarioSettings, seconds_per_sample: float) -> float:
    """Return how long a scenario will take, in seconds.

    Args:
        scenario: the scenario.
        settings: its rate and shortest duration.
        seconds_per_sample: time of one sample, in seconds.
    """
    shortest = settings.min_duration_seconds
    if scenario == "server":  # what waits at the end is run too
        return max(shortest, shortest * (settings.rate_per_second or 0) * seconds_per_sample)
    return max(shortest, settings.min_queries * (settings.samples_per_query or 1) * seconds_per_sample)


def _soak(owner: Owner, system: SystemUnderTest, request: RunSoak) -> None:
    """Run without pauses, and send the samples of each interval, until the owner ends this process."""
    _start(owner, system, [request.batch], lambda _: 0)
    sensors = open_sensors() if request.engines.options.uses_gpu else None
    runs = cycle(_cycle(request.engines.image_shape[0], request.batch))
    start = time.perf_counter_ns()
    while True:
        owner.send(_interval(system, runs, start, request.interval_seconds, sensors))


def _cycle(pool: int, batch: int) -> Iterator[list[int]]:
    """Yield the indices of each run until they repeat: the images of the pool one after the other.

    Args:
        pool: number of images.
        batch: images per run.
    """
    for first in range(0, math.lcm(pool, batch), batch):
        yield [(first + offset) % pool for offset in range(batch)]


def _interval(
    system: SystemUnderTest,
    runs: Iterator[Sequence[int]],
    start: int,
    seconds: float,
    sensors: GpuSensors | None,
) -> Interval:
    """Run for some seconds, once at least.

    Args:
        system: the engines, warm.
        runs: the indices of each run.
        start: when the soak began, in nanoseconds.
        seconds: length of the interval.
        sensors: sensors of the GPU; None on a CPU.

    Raises:
        EngineError: if a run fails.
    """
    taken: list[int] = []
    begin = done = time.perf_counter_ns()
    while not taken or done - begin < seconds * 1e9:
        indices = next(runs)
        started = time.perf_counter_ns()
        system.run(indices)
        done = time.perf_counter_ns()
        taken.append(done - started)
    return Interval(
        nanoseconds=tuple(taken),
        answers=system.take_answers(),
        start_nanoseconds=begin - start,
        duration_nanoseconds=done - begin,
        memory_mib=memory_in_use() / 2**20,
        device_memory_mib=system.device_memory_mib(),
        gpu=sensors.read() if sensors else None,
    )
