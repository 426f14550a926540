"""Percentiles of the steps from an image file to a label."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.benchmarking.statistics import median_difference_interval
from ccr_deploy.benchmarking.step_times import STEPS, step_time, step_times

ROUNDS = np.random.default_rng(0).gamma(4.0, 2.0, (12, 20))


def test_percentiles_come_from_all_raw_samples() -> None:
    found = step_time("encoder", ROUNDS)
    assert found.latency_ms_p50 == pytest.approx(np.median(ROUNDS))
    assert found.latency_ms_p99 == pytest.approx(np.percentile(ROUNDS, 99))
    assert np.array_equal(np.array(found.samples_ms), ROUNDS)


def test_intervals_contain_their_percentiles() -> None:
    found = step_time("encoder", ROUNDS)
    assert found.latency_ms_p50_interval.low < found.latency_ms_p50 < found.latency_ms_p50_interval.high
    assert found.latency_ms_p99_interval.low <= found.latency_ms_p99 <= found.latency_ms_p99_interval.high


def test_each_step_has_its_own_samples() -> None:
    steps = np.stack([ROUNDS + 100 * number for number in range(len(STEPS))], axis=-1)
    found = step_times(steps)
    assert [time.step for time in found] == list(STEPS)
    assert [round(time.latency_ms_p50 // 100) for time in found] == list(range(len(STEPS)))


def test_the_difference_of_medians_resamples_the_same_rounds() -> None:
    """A shift that all rounds share has no uncertainty, however much the rounds differ."""
    drifting = ROUNDS + 1000 * np.arange(len(ROUNDS))[:, None]
    interval = median_difference_interval(drifting + 0.5, drifting)
    assert (interval.low, interval.high) == (pytest.approx(0.5), pytest.approx(0.5))
