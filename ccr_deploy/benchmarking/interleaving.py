"""Competitors taken in turn within one run."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.contention import contention, read_cpu_times
from ccr_deploy.benchmarking.results import Subject, Timing
from ccr_deploy.benchmarking.worker import Worker
from ccr_deploy.core.metrics import BOOTSTRAP_SAMPLES, percentile_interval
from ccr_deploy.core.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ccr_deploy.benchmarking.results import Contention
    from ccr_deploy.benchmarking.worker import Competitor, Turn
    from ccr_deploy.core.metrics import Interval
    from ccr_deploy.core.progress import Progress

SETTLING_SECONDS = 0.05
"""Threads of the last turn's runtime spin on for some milliseconds and would slow the next."""
TURN_TARGET_SECONDS = 0.4
RUNS_PER_TURN = (3, 200)


@dataclass(frozen=True)
class Samples:
    """A competitor's raw samples, in milliseconds, round by round ``[rounds, runs]``, and its memory."""

    competitor: Competitor
    backend_version: str
    milliseconds: npt.NDArray[np.float64]
    peak_memory_mib: float
    device_memory_mib: float | None = None


@dataclass(frozen=True)
class InterleavedRun:
    """The samples of all competitors, and what kept cores from them meanwhile."""

    samples: list[Samples]
    contention: Contention


def race(
    subject: Subject,
    competitors: Sequence[Competitor],
    *,
    batch: int,
    rounds: int,
    progress: Progress = SILENT,
) -> InterleavedRun:
    """Times competitors, each in a process of its own; every round gives each a turn, in changing order.

    Args:
        subject: what they run.
        competitors: at least one.
        batch: images in one run.
        rounds: turns of each.
        progress: told of each round.

    Raises:
        EngineError: one of them cannot be loaded or fails.
    """
    with ExitStack() as stack, progress.task(f"timing: {subject}", rounds) as advance:
        workers = [stack.enter_context(Worker(competitor, batch)) for competitor in competitors]
        versions = [worker.wait_until_loaded() for worker in workers]
        runs = [_runs_per_turn(worker) for worker in workers]
        turns: list[list[Turn]] = [[] for _ in workers]
        before = read_cpu_times()
        for number in range(rounds):
            for offset in range(len(workers)):
                index = (number + offset) % len(workers)
                time.sleep(SETTLING_SECONDS)
                turns[index].append(workers[index].take_turn(runs[index]))
            advance(1)
        observed = contention(subject, before, read_cpu_times())
    samples = [
        Samples(
            competitor,
            version,
            np.array([turn.nanoseconds for turn in own]) / 1e6,
            own[-1].peak_memory_mib,
            own[-1].device_memory_mib,
        )
        for competitor, version, own in zip(competitors, versions, turns, strict=True)
    ]
    return InterleavedRun(samples, observed)


def timings(subject: Subject, samples: Sequence[Samples], batch: int) -> list[Timing]:
    """Percentiles from raw samples, and speed-ups over the first competitor."""
    reference = samples[0].milliseconds
    return [
        Timing(
            subject=subject,
            competitor=entry.competitor.name,
            is_target=entry.competitor.is_target,
            backend_version=entry.backend_version,
            runs=entry.milliseconds.size,
            latency_ms_p50=float(np.percentile(entry.milliseconds, 50)),
            latency_ms_p90=float(np.percentile(entry.milliseconds, 90)),
            latency_ms_p99=float(np.percentile(entry.milliseconds, 99)),
            latency_ms_mean=float(entry.milliseconds.mean()),
            images_per_second=float(batch * 1000 / entry.milliseconds.mean()),
            peak_memory_mib=entry.peak_memory_mib,
            device_memory_mib=entry.device_memory_mib,
            speedup=float(np.median(reference) / np.median(entry.milliseconds)),
            speedup_interval=speedup_interval(reference, entry.milliseconds),
        )
        for entry in samples
    ]


def speedup_interval(
    reference: npt.NDArray[np.float64], other: npt.NDArray[np.float64], seed: int = 0
) -> Interval:
    """The 95 % interval of the ratio of medians, by resampling whole rounds ``[rounds, runs]``.

    Runs of one turn share the machine's mood and are no independent samples; both competitors'
    turns of one round are resampled together, since that mood is what they have in common.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(reference), size=(BOOTSTRAP_SAMPLES, len(reference)))
    ratios = [np.median(reference[rounds]) / np.median(other[rounds]) for rounds in drawn]
    return percentile_interval(np.array(ratios))


def _runs_per_turn(worker: Worker) -> int:
    """As many runs as fill a turn, from two that are timed for it."""
    seconds = min(worker.take_turn(2).nanoseconds) / 1e9
    fewest, most = RUNS_PER_TURN
    return int(np.clip(round(TURN_TARGET_SECONDS / seconds), fewest, most))
