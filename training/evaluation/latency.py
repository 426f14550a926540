"""Time of one image in PyTorch for each T, interleaved: every round times each T."""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from msgspec import structs

from ccr_deploy.benchmarking.contention import contention, read_cpu_times, watch_start
from ccr_deploy.benchmarking.interleaving import runs_per_round
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.benchmarking.statistics import percentile_intervals
from ccr_deploy.benchmarking.warm_up import warm_up
from ccr_deploy.models.chain import normalise
from training.evaluation.results import LatencyConditions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.core.metrics import Interval
    from ccr_deploy.models.chain import BaselineChain, CcrChain


@dataclass(frozen=True)
class Latencies:
    """The median time of one image by T with its 95 % interval, in ms, and how they were measured."""

    medians_ms: dict[int, float]
    intervals_ms: dict[int, Interval]
    conditions: LatencyConditions


def measure_latencies(
    model: CcrChain | BaselineChain, preprocessing: Preprocessing, iterations: Sequence[int], rounds: int
) -> Latencies:
    """Time one image per call, from ``uint8`` pixels to logits.

    This is PyTorch's speed on this machine, to compare T with each other; `ccr-deploy benchmark` measures
    engines.

    Args:
        model: the chain, in evaluation mode, on the device to time.
        preprocessing: the normalisation of its images.
        iterations: every T to time.
        rounds: the number of rounds, at least 1.
    """
    device = next(model.parameters()).device
    runs = [_timed_run(model, preprocessing, number, device) for number in iterations]
    start = watch_start()
    machine = machine_state(with_gpu=device.type == "cuda", start=start)
    counts = [runs_per_round(warm_up(run).run_ms) for run in runs]
    before = read_cpu_times()
    samples = _interleaved(runs, counts, rounds)
    observed = contention("chain", before, read_cpu_times())
    threads = torch.get_num_threads()
    return Latencies(
        medians_ms={t: float(np.median(found)) for t, found in zip(iterations, samples, strict=True)},
        intervals_ms={
            t: percentile_intervals(found, [50])[0] for t, found in zip(iterations, samples, strict=True)
        },
        conditions=LatencyConditions(
            device=machine.gpu or machine.processor,
            threads=threads,
            rounds=rounds,
            machine=machine,
            contention=observed,
            unreliable_reasons=unreliable_reasons(threads, (start, observed)),
        ),
    )


def _interleaved(
    runs: Sequence[Callable[[], int]], counts: Sequence[int], rounds: int
) -> list[np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Return the milliseconds of each candidate, ``float64 [rounds, runs]``; its place rotates.

    Args:
        runs: run a candidate once, and return the time in nanoseconds.
        counts: how often each candidate runs in a round.
        rounds: the number of rounds.
    """
    samples = [np.empty((rounds, count)) for count in counts]
    for number in range(rounds):
        for offset in range(len(runs)):
            index = (number + offset) % len(runs)
            samples[index][number] = [runs[index]() / 1e6 for _ in range(counts[index])]
    return samples


def _timed_run(
    model: CcrChain | BaselineChain, preprocessing: Preprocessing, iterations: int, device: torch.device
) -> Callable[[], int]:
    """Return a function that runs one image with this T, and returns the time in nanoseconds."""
    chain = copy(model)  # shares the weights
    chain.config = structs.replace(model.config, iterations=iterations)
    shape = 1, model.config.image_height, model.config.image_width, 3
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def run() -> int:
        started = time.perf_counter_ns()
        with torch.inference_mode():
            chain(normalise(image.to(device), preprocessing)).cpu()  # waits for a GPU
        return time.perf_counter_ns() - started

    return run
