"""The interleaved benchmark: every round times each candidate once."""

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
    from ccr_deploy.benchmarking.worker import Candidate, RoundSamples
    from ccr_deploy.core.metrics import Interval
    from ccr_deploy.core.progress import Progress

SETTLING_SECONDS = 0.05
"""Pause before each timing: threads of the runtime timed before spin for some milliseconds."""
ROUND_TARGET_SECONDS = 0.4
RUNS_PER_ROUND = (3, 200)
"""Limits for the number of runs: at least 3 of a slow candidate, at most 200 of a fast one."""


@dataclass(frozen=True)
class Samples:
    """Raw samples of a candidate: `milliseconds` is ``float64 [rounds, runs]``; memory of its process."""

    candidate: Candidate
    backend_version: str
    milliseconds: npt.NDArray[np.float64]
    peak_memory_mib: float
    device_memory_mib: float | None = None


@dataclass(frozen=True)
class InterleavedRun:
    """The samples of all candidates, and the contention during the run."""

    samples: list[Samples]
    contention: Contention


def run_interleaved(
    subject: Subject,
    candidates: Sequence[Candidate],
    *,
    batch: int,
    rounds: int,
    progress: Progress = SILENT,
) -> InterleavedRun:
    """Time candidates, each in its own process; every round times each once, in rotating order.

    Args:
        subject: stage or chain that the candidates run.
        candidates: candidates to time, at least one.
        batch: images per run.
        rounds: number of rounds.
        progress: advances by one for each round.

    Raises:
        EngineError: if a candidate cannot be loaded or run.
    """
    with ExitStack() as stack, progress.task(f"timing: {subject}", rounds) as advance:
        workers = [stack.enter_context(Worker(candidate, batch)) for candidate in candidates]
        versions = [worker.wait_until_loaded() for worker in workers]
        runs = [_runs_per_round(worker) for worker in workers]
        measured: list[list[RoundSamples]] = [[] for _ in workers]
        before = read_cpu_times()
        for number in range(rounds):
            for offset in range(len(workers)):
                index = (number + offset) % len(workers)
                time.sleep(SETTLING_SECONDS)
                measured[index].append(workers[index].run_round(runs[index]))
            advance(1)
        observed = contention(subject, before, read_cpu_times())
    samples = [
        Samples(
            candidate,
            version,
            np.array([entry.nanoseconds for entry in own]) / 1e6,
            own[-1].peak_memory_mib,
            own[-1].device_memory_mib,
        )
        for candidate, version, own in zip(candidates, versions, measured, strict=True)
    ]
    return InterleavedRun(samples, observed)


def timings(subject: Subject, samples: Sequence[Samples], batch: int) -> list[Timing]:
    """Return percentiles of raw samples, and speed-ups over the first candidate.

    Args:
        subject: stage or chain that the candidates ran.
        samples: samples of each candidate; the first candidate is the baseline.
        batch: images per run.
    """
    reference = samples[0].milliseconds
    return [
        Timing(
            subject=subject,
            candidate=entry.candidate.name,
            is_target=entry.candidate.is_target,
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
    """Return the 95 % interval of the ratio of medians by bootstrapping whole rounds.

    The runs of a round share the momentary load of the machine, so they are not independent: the samples of
    both candidates in a round are resampled together.

    Args:
        reference: samples of the baseline in ms, ``float64 [rounds, runs]``.
        other: samples of another candidate in ms, ``float64 [rounds, runs]``.
        seed: seed of the resampling.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(reference), size=(BOOTSTRAP_SAMPLES, len(reference)))
    ratios = [np.median(reference[rounds]) / np.median(other[rounds]) for rounds in drawn]
    return percentile_interval(np.array(ratios))


def _runs_per_round(worker: Worker) -> int:
    """Return the number of runs that take `ROUND_TARGET_SECONDS`, estimated from two timed runs."""
    seconds = min(worker.run_round(2).nanoseconds) / 1e9
    fewest, most = RUNS_PER_ROUND
    return int(np.clip(round(ROUND_TARGET_SECONDS / seconds), fewest, most))
