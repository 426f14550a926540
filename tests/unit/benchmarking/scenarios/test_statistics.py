from __future__ import annotations

import pytest

from ccr_deploy.benchmarking.scenarios.statistics import drawn, latencies, milliseconds


def test_percentiles_are_samples_and_not_interpolated() -> None:
    spread = latencies([float(value) for value in reversed(range(1000))])
    assert (spread.p50_ms, spread.p90_ms, spread.p95_ms, spread.p97_ms) == (500, 900, 950, 970)
    assert (spread.p99_ms, spread.p99_9_ms, spread.min_ms, spread.max_ms) == (990, 999, 0, 999)
    assert spread.mean_ms == pytest.approx(499.5)


def test_a_single_sample_is_every_percentile() -> None:
    spread = latencies([3.5])
    assert {spread.p50_ms, spread.p99_9_ms, spread.mean_ms, spread.min_ms, spread.max_ms} == {3.5}


def test_samples_are_rounded_to_a_tenth_of_a_microsecond() -> None:
    assert milliseconds([1_234_567, 49]) == (1.2346, 0.0)


def test_samples_over_the_limit_are_drawn_in_order_by_the_seed() -> None:
    samples = [float(value) for value in range(1000)]
    kept = drawn(samples, 100, seed=0)
    assert len(set(kept)) == 100
    assert list(kept) == sorted(kept)
    assert kept == drawn(samples, 100, seed=0) != drawn(samples, 100, seed=1)
    assert drawn(samples, 1000, seed=0) == tuple(samples)
