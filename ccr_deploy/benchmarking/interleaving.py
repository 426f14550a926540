"""The interleaved benchmark: every round times each candidate once."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.contention import contention, read_cpu_times
from ccr_deploy.benchmarking.results import FastestPyTorch, GpuLoad, Subject, Timing
from ccr_deploy.benchmarking.worker import Worker
from ccr_deploy.core.metrics import BOOTSTRAP_SAMPLES, percentile_interval
from ccr_deploy.core.progress import SILENT
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from ccr_deploy.benchmarking.results import Contention, GpuState
    from ccr_deploy.benchmarking.worker import Candidate, Loaded, RoundSamples
    from ccr_deploy.core.metrics import Interval
    from ccr_deploy.core.progress import Progress

SETTLING_SECONDS = 0.05
"""Pause before each timing: threads of the runtime timed before spin for some milliseconds."""
ROUND_TARGET_SECONDS = 0.4
_DIGITS = 4
"""Decimals of saved samples in ms: 0.1 µs."""
RUNS_PER_ROUND = (3, 200)
"""Limits for the number of runs: at least 3 of a slow candidate, at most 200 of a fast one."""


@dataclass(frozen=True)
class Samples:
    """Raw samples of a candidate: `milliseconds` is ``float64 [rounds, runs]``; memory of its process.

    `device_milliseconds` are those of runs that were measured on the GPU, and `gpu` the GPU's states in the
    order in which they were read; empty if they could not be measured.
    """

    candidate: Candidate
    backend_version: str
    milliseconds: npt.NDArray[np.float64]
    peak_memory_mib: float
    device_memory_mib: float | None = None
    device_milliseconds: tuple[float, ...] = ()
    gpu: tuple[GpuState, ...] = ()
    engines_sha256: tuple[str, ...] = ()


@dataclass(frozen=True)
class InterleavedRun:
    """The samples of all candidates, the contention during the run, and why candidates were left out."""

    samples: list[Samples]
    contention: Contention
    left_out: tuple[str, ...] = ()


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
        EngineError: if a candidate cannot be loaded, unless it is optional, or cannot be run.
    """
    with ExitStack() as stack, progress.task(f"timing: {subject}", rounds) as advance:
        workers = [stack.enter_context(Worker(candidate, batch)) for candidate in candidates]
        loaded, left_out = _loaded(workers)
        workers = list(loaded)
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
            worker.candidate,
            engines.version,
            np.array([entry.nanoseconds for entry in own]) / 1e6,
            own[-1].peak_memory_mib,
            own[-1].device_memory_mib,
            tuple(sample for entry in own for sample in entry.device_milliseconds),
            tuple(state for entry in own for state in entry.gpu),
            engines.engines_sha256,
        )
        for (worker, engines), own in zip(loaded.items(), measured, strict=True)
    ]
    return InterleavedRun(samples, observed, left_out)


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
            device_latency_ms_p50=float(np.median(entry.device_milliseconds))
            if entry.device_milliseconds
            else None,
            gpu=gpu_load(entry.gpu),
            speedup=float(np.median(reference) / np.median(entry.milliseconds)),
            speedup_interval=speedup_interval(reference, entry.milliseconds),
            precisions=tuple(precision for _, precision in entry.candidate.engines),
            engines_sha256=entry.engines_sha256,
            samples_ms=tuple(tuple(own) for own in entry.milliseconds.round(_DIGITS).tolist()),
        )
        for entry in samples
    ]


def fastest_pytorch(
    subject: Subject, samples: Sequence[Samples], names: Collection[str]
) -> FastestPyTorch | None:
    """Compare the target's engines with the fastest form of PyTorch; None if there is only one.

    Args:
        subject: stage or chain that the candidates ran.
        samples: samples of each candidate, among them the target's.
        names: names of the candidates that are forms of PyTorch.
    """
    forms = [entry for entry in samples if entry.candidate.name in names]
    if len(forms) < 2:
        return None
    fastest = min(forms, key=lambda entry: float(np.median(entry.milliseconds)))
    target = next(entry for entry in samples if entry.candidate.is_target)
    return FastestPyTorch(
        subject=subject,
        candidate=fastest.candidate.name,
        speedup=float(np.median(fastest.milliseconds) / np.median(target.milliseconds)),
        speedup_interval=speedup_interval(fastest.milliseconds, target.milliseconds),
    )


def gpu_load(states: Sequence[GpuState]) -> GpuLoad | None:
    """Summarize the states of the GPU under the load of one candidate; None if there are none."""
    if not states:
        return None
    clocks = [state.sm_clock_mhz for state in states if state.sm_clock_mhz is not None]
    return GpuLoad(
        before=states[0],
        after=states[-1],
        lowest_sm_clock_mhz=min(clocks, default=None),
        throttle_reasons=tuple(dict.fromkeys(name for state in states for name in state.throttle_reasons)),
    )


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


def _loaded(workers: Sequence[Worker]) -> tuple[dict[Worker, Loaded], tuple[str, ...]]:
    """Wait until the workers are loaded; return what they loaded, and why optional ones are left out."""
    loaded: dict[Worker, Loaded] = {}
    left_out = []
    for worker in workers:
        try:
            loaded[worker] = worker.wait_until_loaded()
        except EngineError as error:  # noqa: PERF203 -- loading takes seconds
            if not worker.candidate.is_optional:
                raise
            left_out.append(str(error))
    return loaded, tuple(left_out)


def _runs_per_round(worker: Worker) -> int:
    """Return the number of runs that take `ROUND_TARGET_SECONDS`, estimated from two timed runs."""
    seconds = min(worker.run_round(2).nanoseconds) / 1e9
    fewest, most = RUNS_PER_ROUND
    return int(np.clip(round(ROUND_TARGET_SECONDS / seconds), fewest, most))
