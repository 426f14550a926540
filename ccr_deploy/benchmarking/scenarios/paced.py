"""*Paced*: the frames of a camera, with pauses in between, beside runs without pauses.

Many devices are slower after idling than under steady load: clocks fall, caches are evicted, cores sleep.
Both are measured in turn, so that a slow change of the machine does not pass for the effect of a pause.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.scenario_results import PacedComparison
from ccr_deploy.benchmarking.scenarios.messages import PacedRounds
from ccr_deploy.benchmarking.scenarios.statistics import KEPT_SAMPLES, drawn, latencies, milliseconds
from ccr_deploy.benchmarking.statistics import median_ratio_interval

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.scenario_results import ScenarioSettings
    from ccr_deploy.benchmarking.scenarios.under_test import SystemUnderTest

FRAMES_PER_ROUND = (2, 10)
"""Frames of a round: as many as arrive in a second, within these limits."""
MIN_ROUNDS = 2
_WARM_UP_RUNS = 2
"""Runs between a pause and the steady runs of the next round."""


def frames_per_round(rate: float) -> int:
    """Return the number of frames of a round, and of its steady runs, at a rate in frames per second."""
    return int(np.clip(round(rate), *FRAMES_PER_ROUND))


def run_paced(system: SystemUnderTest, settings: ScenarioSettings) -> PacedRounds:
    """Run rounds of steady runs and of frames until the shortest duration is reached.

    Args:
        system: the engines, warm.
        settings: the rate of the frames, the duration, and the seed of the samples.

    Raises:
        EngineError: if a run fails.
    """
    assert settings.rate_per_second
    period = round(1e9 / settings.rate_per_second)
    count = frames_per_round(settings.rate_per_second)
    generator = np.random.default_rng(settings.seed)
    steady: list[tuple[int, ...]] = []
    frames: list[tuple[int, ...]] = []
    dropped = 0
    start = time.perf_counter_ns()
    end = start + settings.min_duration_seconds * 1e9
    while len(frames) < MIN_ROUNDS or time.perf_counter_ns() < end:
        indices = generator.integers(settings.pool, size=2 * count).tolist()
        for index in indices[:_WARM_UP_RUNS]:
            system.run([index])
        steady.append(tuple(_timed(system, index) for index in indices[:count]))
        taken, missed = _frames(system, indices[count:], period)
        frames.append(taken)
        dropped += missed
    return PacedRounds(tuple(steady), tuple(frames), dropped, time.perf_counter_ns() - start)


def next_frame(arrived: int, done: int, period: int) -> tuple[int, int]:
    """Return when the next frame arrives, and how many were dropped meanwhile.

    Args:
        arrived: when the last frame arrived, in nanoseconds.
        done: when it was processed, in nanoseconds.
        period: time between two frames, in nanoseconds.
    """
    dropped = max(0, done - arrived - 1) // period
    return arrived + (dropped + 1) * period, dropped


def compare(rounds: PacedRounds, seed: int) -> PacedComparison:
    """Compare the frames with the runs without pauses; the seed draws the samples that are kept."""
    steady, frames = (np.array(side, dtype=np.float64) / 1e6 for side in (rounds.steady, rounds.frames))
    flat = milliseconds([sample for taken in rounds.steady for sample in taken])
    return PacedComparison(
        rounds=len(frames),
        steady=latencies(flat),
        steady_samples_ms=drawn(flat, KEPT_SAMPLES, seed),
        ratio=float(np.median(frames) / np.median(steady)),
        ratio_interval=median_ratio_interval(frames, steady),
        frames=frames.size,
        dropped_frames=rounds.dropped,
    )


def _frames(system: SystemUnderTest, indices: list[int], period: int) -> tuple[tuple[int, ...], int]:
    """Process one frame for each index; return the times, from wake-up to result, and the dropped frames."""
    taken: list[int] = []
    dropped = 0
    arrives = time.perf_counter_ns() + period
    for index in indices:
        time.sleep(max(0, arrives - time.perf_counter_ns()) / 1e9)
        taken.append(_timed(system, index))
        arrives, missed = next_frame(arrives, time.perf_counter_ns(), period)
        dropped += missed
    return tuple(taken), dropped


def _timed(system: SystemUnderTest, index: int) -> int:
    started = time.perf_counter_ns()
    system.run([index])
    return time.perf_counter_ns() - started
