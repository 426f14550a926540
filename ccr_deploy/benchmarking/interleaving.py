"""The interleaved benchmark: every round times each candidate once."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.answers import check_answers
from ccr_deploy.benchmarking.contention import contention, read_cpu_times
from ccr_deploy.benchmarking.environment import clocks_mhz, usable_cores
from ccr_deploy.benchmarking.inputs import Items
from ccr_deploy.benchmarking.results import CpuLoad, FastestPyTorch, GpuLoad, Subject, Timing
from ccr_deploy.benchmarking.statistics import median_ratio_interval, percentile_intervals
from ccr_deploy.benchmarking.timed_runs import fresh_input_ratio
from ccr_deploy.benchmarking.worker import Worker
from ccr_deploy.core.progress import SILENT
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.benchmarking.answers import Answer, Expected
    from ccr_deploy.benchmarking.results import Contention, GpuState, WarmUp
    from ccr_deploy.benchmarking.worker import Candidate, Loaded, RoundSamples
    from ccr_deploy.core.progress import Progress

SETTLING_SECONDS = 0.05
"""Pause before each timing: threads of the runtime timed before spin for some milliseconds."""
ROUND_TARGET_SECONDS = 0.4
_DIGITS = 4
"""Decimals of saved samples in ms: 0.1 µs."""
PERCENTILES = (50, 90, 99)
RUNS_PER_ROUND = (3, 200)
"""Limits for the number of runs: at least 3 of a slow candidate, at most 200 of a fast one."""


@dataclass(frozen=True)
class Samples:
    """Raw samples of a candidate: `milliseconds` is ``float64 [rounds, runs]``; memory of its process.

    `device_milliseconds` are those of runs that were measured on the GPU, and `gpu` the GPU's states in the
    order in which they were read; empty if they could not be measured. `inputs` has a letter for each sample
    of each round, `clocks_mhz` the CPU's highest clock at the end of each round.
    """

    candidate: Candidate
    backend_version: str
    milliseconds: npt.NDArray[np.float64]
    peak_memory_mib: float
    device_memory_mib: float | None = None
    device_milliseconds: tuple[float, ...] = ()
    gpu: tuple[GpuState, ...] = ()
    engines_sha256: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    warm_up: WarmUp | None = None
    clocks_mhz: tuple[int, ...] = ()
    without_copies_milliseconds: tuple[float, ...] = ()
    device_without_copies_milliseconds: tuple[float, ...] = ()


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
    items: Mapping[str, npt.NDArray[np.uint8]] | None = None,
    progress: Progress = SILENT,
) -> InterleavedRun:
    """Time candidates, each in its own process; every round times each once, in rotating order.

    Args:
        subject: stage or chain that the candidates run.
        candidates: candidates to time, at least one.
        batch: images per run.
        rounds: number of rounds.
        items: images or packed codes ``uint8 [N, ...]`` that a candidate's inputs are made from, by its name;
            None for random ones.
        progress: advances by one for each round.

    Raises:
        EngineError: if a candidate cannot be loaded, unless it is optional, or cannot be run, or if the file
            of one of its engines changes in the meantime.
    """
    cores = usable_cores()
    with ExitStack() as stack, progress.task(f"timing: {subject}", rounds) as advance:
        workers = [
            stack.enter_context(
                Worker(candidate, batch, None if items is None else Items.of(items[candidate.name]))
            )
            for candidate in candidates
        ]
        loaded, left_out = _loaded(workers)
        workers = list(loaded)
        warm = [_settled(worker).warm_up() for worker in workers]
        runs = [runs_per_round(entry.run_ms) for entry in warm]
        measured: list[list[RoundSamples]] = [[] for _ in workers]
        clocks: list[list[int]] = [[] for _ in workers]
        before = read_cpu_times()
        for number in range(rounds):
            for offset in range(len(workers)):
                index = (number + offset) % len(workers)
                measured[index].append(_settled(workers[index]).run_round(runs[index]))
                clocks[index].extend(sorted(clocks_mhz(cores))[-1:])
            advance(1)
        observed = contention(subject, before, read_cpu_times())
        for worker, engines in loaded.items():
            worker.check_unchanged(engines)
    samples = [
        _samples(worker.candidate, loaded[worker], taken, warmed, highest)
        for worker, taken, warmed, highest in zip(workers, measured, warm, clocks, strict=True)
    ]
    return InterleavedRun(samples, observed, left_out)


def runs_per_round(run_ms: float) -> int:
    """Return the number of runs that take `ROUND_TARGET_SECONDS`."""
    fewest, most = RUNS_PER_ROUND
    return int(np.clip(round(1000 * ROUND_TARGET_SECONDS / run_ms), fewest, most))


def timings(
    subject: Subject,
    samples: Sequence[Samples],
    batch: int,
    expected: Mapping[str, Expected] | None = None,
) -> list[Timing]:
    """Return percentiles of raw samples, and speed-ups over the first candidate.

    Args:
        subject: stage or chain that the candidates ran.
        samples: samples of each candidate; the first candidate is the baseline.
        batch: images per run.
        expected: the reference's outputs for all items, by the names of the candidates; None if the answers
            are not compared.
    """
    reference, known = samples[0].milliseconds, expected or {}
    return [_timing(subject, entry, batch, reference, known.get(entry.candidate.name)) for entry in samples]


def _timing(
    subject: Subject,
    entry: Samples,
    batch: int,
    reference: npt.NDArray[np.float64],
    expected: Expected | None,
) -> Timing:
    p50, p90, p99 = np.percentile(entry.milliseconds, PERCENTILES)
    intervals = percentile_intervals(entry.milliseconds, PERCENTILES)
    ratio, ratio_interval = fresh_input_ratio(entry.milliseconds, entry.inputs)
    return Timing(
        subject=subject,
        candidate=entry.candidate.name,
        is_target=entry.candidate.is_target,
        backend_version=entry.backend_version,
        runs=entry.milliseconds.size,
        latency_ms_p50=float(p50),
        latency_ms_p90=float(p90),
        latency_ms_p99=float(p99),
        latency_ms_mean=float(entry.milliseconds.mean()),
        images_per_second=float(batch * 1000 / entry.milliseconds.mean()),
        peak_memory_mib=entry.peak_memory_mib,
        device_memory_mib=entry.device_memory_mib,
        device_latency_ms_p50=_median(entry.device_milliseconds),
        gpu=gpu_load(entry.gpu),
        speedup=float(np.median(reference) / p50),
        speedup_interval=median_ratio_interval(reference, entry.milliseconds),
        precisions=tuple(precision for _, precision in entry.candidate.engines),
        engines_sha256=entry.engines_sha256,
        samples_ms=tuple(tuple(own) for own in entry.milliseconds.round(_DIGITS).tolist()),
        inputs=entry.inputs,
        latency_ms_p50_interval=intervals[0],
        latency_ms_p90_interval=intervals[1],
        latency_ms_p99_interval=intervals[2],
        fresh_input_ratio=ratio,
        fresh_input_ratio_interval=ratio_interval,
        latency_without_copies_ms_p50=_median(entry.without_copies_milliseconds),
        device_latency_without_copies_ms_p50=_median(entry.device_without_copies_milliseconds),
        warm_up=entry.warm_up,
        answers=check_answers(entry.answers, expected) if expected and entry.answers else None,
        cpu=cpu_load(entry.clocks_mhz),
    )


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
        speedup_interval=median_ratio_interval(fastest.milliseconds, target.milliseconds),
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


def cpu_load(clocks_mhz: Sequence[int]) -> CpuLoad | None:
    """Summarize the CPU's highest clocks at the ends of a candidate's rounds; None without any."""
    if not clocks_mhz:
        return None
    third = -(-len(clocks_mhz) // 3)
    first, last = np.median(clocks_mhz[:third]), np.median(clocks_mhz[-third:])
    return CpuLoad(float(first), float(last), min(clocks_mhz))


def _samples(
    candidate: Candidate,
    engines: Loaded,
    rounds: Sequence[RoundSamples],
    warm_up: WarmUp,
    clocks_mhz: Sequence[int],
) -> Samples:
    return Samples(
        candidate,
        engines.version,
        np.array([entry.nanoseconds for entry in rounds]) / 1e6,
        rounds[-1].peak_memory_mib,
        rounds[-1].device_memory_mib,
        tuple(sample for entry in rounds for sample in entry.device_milliseconds),
        tuple(state for entry in rounds for state in entry.gpu),
        engines.engines_sha256,
        tuple(entry.inputs for entry in rounds),
        tuple(answer for entry in rounds for answer in entry.answers),
        warm_up,
        tuple(clocks_mhz),
        tuple(sample for entry in rounds for sample in entry.without_copies_milliseconds),
        tuple(sample for entry in rounds for sample in entry.device_without_copies_milliseconds),
    )


def _settled(worker: Worker) -> Worker:
    """Return a worker after a pause, in which the threads of the one before stop spinning."""
    time.sleep(SETTLING_SECONDS)
    return worker


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


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
