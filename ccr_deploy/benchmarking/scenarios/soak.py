"""A soak: engines run without pauses for minutes; each interval is recorded with the machine's sensors."""

from __future__ import annotations

import signal
import threading
import time
from array import array
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.answers import counted
from ccr_deploy.benchmarking.contention import contention, read_cpu_times
from ccr_deploy.benchmarking.scenario_results import SoakInterval
from ccr_deploy.benchmarking.scenarios.cpu_sensors import CpuSensors
from ccr_deploy.benchmarking.scenarios.messages import Interval, RunSoak
from ccr_deploy.benchmarking.scenarios.process import ScenarioProcess
from ccr_deploy.benchmarking.scenarios.statistics import drawn, latencies, milliseconds
from ccr_deploy.core.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from ccr_deploy.benchmarking.answers import Answer
    from ccr_deploy.benchmarking.contention import CpuTimes
    from ccr_deploy.benchmarking.results import Contention, Subject
    from ccr_deploy.benchmarking.scenarios.cpu_sensors import CpuState
    from ccr_deploy.benchmarking.scenarios.messages import Started
    from ccr_deploy.core.progress import Progress

INTERVALS = 60
"""Number of intervals of a soak of one to ten minutes; a longer one has more, a shorter one fewer."""
INTERVAL_SECONDS = (1.0, 10.0)
"""Not shorter: after each interval, the CPU times of all processes are read."""
KEPT_SAMPLES = 10_000
KEPT_ANSWERS = 1_000
"""Different answers that are kept besides those before the soak: an engine may give another in every run."""
_HANGING_SECONDS = 600


@dataclass
class SoakRun:
    """What a soak measured so far, and the process at its start.

    `answers` are the outputs before the soak, then those of some of its runs. `contention` was measured until
    the end of the rounds of fresh inputs, and during the soak.
    """

    started: Started
    answers: tuple[Answer, ...] = ()
    intervals: list[SoakInterval] = field(default_factory=list)
    samples_ms: array[float] = field(default_factory=lambda: array("d"))
    contention: tuple[Contention, ...] = ()
    ended_early: bool = False

    def add_answers(self, answers: Iterable[Answer]) -> None:
        """Add answers of an interval; keep up to `KEPT_ANSWERS` different ones besides those of the start."""
        found = counted((*self.answers, *answers))
        first = len(self.started.answers)
        self.answers = (*found[:first], *drawn(found[first:], KEPT_ANSWERS, len(self.intervals)))

    def kept_samples(self, seed: int) -> tuple[float, ...]:
        """Return up to `KEPT_SAMPLES` samples, drawn at random from all, in order of time."""
        return drawn(self.samples_ms, KEPT_SAMPLES, seed)


def interval_seconds(minutes: float) -> float:
    """Return the length of an interval of a soak of some minutes, in seconds."""
    shortest, longest = INTERVAL_SECONDS
    return float(np.clip(60 * minutes / INTERVALS, shortest, longest))


def run_soak(request: RunSoak, subject: Subject, minutes: float, progress: Progress = SILENT) -> SoakRun:
    """Run the engines without pauses in a process of their own.

    Ctrl-C ends the soak after the current interval: what was measured is kept. A second one ends the command.

    Args:
        request: the engines and the length of an interval.
        subject: what the engines are, for the contention.
        minutes: how long to run.
        progress: advances by one for each second of the run.

    Raises:
        EngineError: if the engines cannot be loaded or run.
    """
    seconds = 60 * minutes
    loading = read_cpu_times()
    with ScenarioProcess(request) as process:
        started = process.started()
        run = SoakRun(started, started.answers)
        total, shown = max(1, round(seconds)), 0
        sensors = CpuSensors.find()
        first = before = _Reading.now(sensors)
        with interrupted() as stop, progress.task(f"soak: {subject}", total) as advance:
            while True:
                found: Interval = process.answer(Interval, _HANGING_SECONDS)
                after = _Reading.now(sensors)
                watts = sensors.watts(before.cpu, after.cpu, after.at - before.at)
                run.intervals.append(_recorded(found, request.batch, subject, before, after, watts=watts))
                run.add_answers(found.answers)
                run.samples_ms.extend(milliseconds(found.nanoseconds))
                passed = (found.start_nanoseconds + found.duration_nanoseconds) / 1e9
                advance(int(passed) - shown)
                before, shown = after, int(passed)
                # Not before the first interval: a Ctrl-C that comes early still gets a result.
                if passed >= seconds or stop.is_set():
                    break
        run.ended_early = passed < seconds
        run.contention = (
            contention("fresh inputs", loading, first.times),
            contention(subject, first.times, before.times),
        )
    return run


@contextmanager
def interrupted() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets; a second one raises KeyboardInterrupt as usual.

    Elsewhere than in the main thread, Python delivers no signals, so that the event is never set.
    """
    event = threading.Event()
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is signal.SIG_IGN:
        yield event
        return

    def end(_: int, __: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, end)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, usual)


@dataclass(frozen=True)
class _Reading:
    """The machine at the border between two intervals."""

    at: float
    times: CpuTimes
    cpu: CpuState

    @classmethod
    def now(cls, sensors: CpuSensors) -> _Reading:
        return cls(time.monotonic(), read_cpu_times(), sensors.read())


def _recorded(
    found: Interval, batch: int, subject: Subject, before: _Reading, after: _Reading, *, watts: float | None
) -> SoakInterval:
    """Return the record of an interval."""
    spread = latencies(milliseconds(found.nanoseconds))
    seconds = found.duration_nanoseconds / 1e9
    withheld = contention(subject, before.times, after.times)
    return SoakInterval(
        seconds=round(found.start_nanoseconds / 1e9, 3),
        duration_seconds=round(seconds, 3),
        runs=len(found.nanoseconds),
        p50_ms=spread.p50_ms,
        p90_ms=spread.p90_ms,
        p99_ms=spread.p99_ms,
        max_ms=spread.max_ms,
        images_per_second=batch * len(found.nanoseconds) / seconds,
        memory_mib=round(found.memory_mib, 2),
        device_memory_mib=found.device_memory_mib,
        cpu_clock_mhz=after.cpu.clock_mhz,
        cpu_temperature_celsius=after.cpu.temperature_celsius,
        cpu_power_watts=watts,
        gpu=found.gpu,
        other_processes_cores=withheld.other_processes_cores,
        stolen_cores=withheld.stolen_cores,
        throttled_cores=withheld.throttled_cores,
    )
