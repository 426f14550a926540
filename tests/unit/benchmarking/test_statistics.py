"""Intervals by bootstrapping rounds, and what `timings` makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.benchmarking.interleaving import Samples, cpu_load, timings
from ccr_deploy.benchmarking.results import CpuLoad
from ccr_deploy.benchmarking.statistics import (
    median_difference_interval,
    median_ratio_interval,
    percentile_intervals,
)
from ccr_deploy.benchmarking.worker import Candidate
from ccr_deploy.core.metrics import Interval


def lognormal(rounds: int, runs: int, seed: int) -> np.ndarray:
    return 10 * np.random.default_rng(seed).lognormal(0, 0.2, size=(rounds, runs))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_interval_of_a_percentile_contains_the_true_one(seed: int) -> None:
    found = percentile_intervals(lognormal(30, 50, seed), (50, 90))
    for interval, quantile in zip(found, (0.0, 1.2816), strict=True):
        assert interval.low < 10 * np.exp(0.2 * quantile) < interval.high


def test_rounds_that_differ_widen_the_interval() -> None:
    alike = lognormal(15, 40, 0)
    rounds = np.linspace(0.5, 2, 15)[:, None]
    (narrow,), (wide,) = (percentile_intervals(samples, (50,)) for samples in (alike, alike * rounds))
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_rounds_may_have_different_numbers_of_runs() -> None:
    rounds = [np.full(3, 6.0), np.full(2, 6.0), np.full(4, 6.0)]
    assert median_ratio_interval(rounds, [own / 2 for own in rounds]) == Interval(2.0, 2.0)


def test_the_load_of_a_round_cancels_in_a_difference() -> None:
    rounds = [np.full(3, 6.0), np.full(3, 60.0), np.full(3, 8.0)]
    assert median_difference_interval([own + 2 for own in rounds], rounds) == Interval(2.0, 2.0)


def entry(milliseconds: np.ndarray, inputs: tuple[str, ...]) -> Samples:
    candidate = Candidate("cpu", True, OnnxRuntimeOptions(), ())
    return Samples(candidate, "1.20.0", milliseconds, 64.0, inputs=inputs)


def test_the_ratio_of_fresh_to_repeated_inputs_is_that_of_the_medians() -> None:
    milliseconds = np.array([[1.0, 1.0, 3.0, 3.0], [3.0, 3.0, 1.0, 1.0]])
    (timing,) = timings("encoder", [entry(milliseconds, ("rrff", "ffrr"))], 1)
    assert (timing.fresh_input_ratio, timing.fresh_input_ratio_interval) == (3.0, Interval(3.0, 3.0))
    assert timing.inputs == ("rrff", "ffrr")


@pytest.mark.parametrize("inputs", [(), ("r", "f")])
def test_without_both_kinds_in_every_round_there_is_no_ratio(inputs: tuple[str, ...]) -> None:
    (timing,) = timings("encoder", [entry(np.ones((2, 1)), inputs)], 1)
    assert (timing.fresh_input_ratio, timing.fresh_input_ratio_interval) == (None, None)


def test_each_percentile_is_within_its_interval() -> None:
    (timing,) = timings("encoder", [entry(lognormal(20, 30, 0), ())], 1)
    for value, interval in (
        (timing.latency_ms_p50, timing.latency_ms_p50_interval),
        (timing.latency_ms_p90, timing.latency_ms_p90_interval),
        (timing.latency_ms_p99, timing.latency_ms_p99_interval),
    ):
        assert interval
        assert interval.low <= value <= interval.high


def test_the_cpus_clock_is_that_of_the_first_and_of_the_last_third() -> None:
    assert cpu_load([3400, 3300, 3200, 1000, 2900, 2800, 2700]) == CpuLoad(3300.0, 2800.0, 1000)
    assert cpu_load([3400]) == CpuLoad(3400.0, 3400.0, 3400)
    assert cpu_load([]) is None
