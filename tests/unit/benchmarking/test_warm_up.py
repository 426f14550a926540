"""The end of a warm-up, for every kind of series of times."""

from __future__ import annotations

from itertools import chain, count, cycle, repeat
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.benchmarking.results import WarmUp
from ccr_deploy.benchmarking.warm_up import (
    MAX_SECONDS,
    WINDOW_RUNS,
    WINDOW_SECONDS,
    is_over,
    is_steady,
    warm_up,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def warmed(milliseconds: Iterable[float], at_least_seconds: float = 0.0) -> WarmUp:
    """Warm up with runs that take these times."""
    times = iter(milliseconds)
    return warm_up(lambda: round(1e6 * next(times)), at_least_seconds)


def test_a_steady_rate_ends_after_two_windows() -> None:
    assert warmed(repeat(20.0)) == WarmUp(
        runs=2 * WINDOW_RUNS, seconds=0.12, is_steady=True, run_ms=pytest.approx(20.0)
    )


def test_fast_runs_fill_the_time_of_a_window() -> None:
    found = warmed(repeat(0.1))
    assert found.is_steady
    assert found.seconds == pytest.approx(2 * WINDOW_SECONDS, rel=0.01)


def test_a_falling_time_is_waited_for() -> None:
    falling = [100.0, 90.0, 80.0, 70.0, 60.0, 50.0, 40.0, 35.0, 32.0]
    found = warmed(chain(falling, repeat(30.0)))
    assert found.is_steady
    assert found.runs > len(falling) + WINDOW_RUNS
    assert found.run_ms == pytest.approx(30.0)


def test_a_rising_time_is_waited_for() -> None:
    """A processor that gets hot is as unsteady as one that wakes up."""
    found = warmed(chain((20 * 1.2**step for step in range(9)), repeat(110.0)))
    assert found.is_steady
    assert found.runs > 9


def test_the_mean_counts_the_slow_runs_of_a_busy_machine() -> None:
    """So that the number of runs of a round is small if some of them take long."""
    assert warmed(cycle([1.0] * 9 + [41.0])).run_ms > 3


def test_noise_does_not_matter_as_long_as_the_medians_agree() -> None:
    noise = np.random.default_rng(0).lognormal(0, 0.05, 100_000)
    found = warmed(1.0 * noise)
    assert found.is_steady
    assert found.seconds < MAX_SECONDS


def test_single_slow_runs_do_not_matter() -> None:
    assert warmed(cycle([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 30.0])).is_steady


def test_a_rate_that_never_settles_ends_at_the_limit_and_says_so() -> None:
    found = warmed(chain.from_iterable(repeat(100.0 if window % 2 else 50.0, 3) for window in count()))
    assert not found.is_steady
    assert MAX_SECONDS <= found.seconds < MAX_SECONDS + 0.3


def test_a_candidate_slower_than_the_limit_runs_two_windows() -> None:
    steady, falling = warmed(repeat(1000.0)), warmed(chain(repeat(1000.0, 3), repeat(500.0)))
    assert (steady.runs, steady.is_steady) == (2 * WINDOW_RUNS, True)
    assert (falling.runs, falling.is_steady) == (2 * WINDOW_RUNS, False)


def test_a_gpu_warms_up_for_a_minimum_of_time() -> None:
    assert warmed(repeat(1.0), at_least_seconds=0.3).seconds == pytest.approx(0.3, abs=0.06)


def test_one_window_is_never_enough() -> None:
    assert not is_steady([])
    assert not is_steady([1.0])
    assert not is_over([1.0], 100.0, 0.0)


@pytest.mark.parametrize(("last", "steady"), [(1.04, True), (0.96, True), (1.06, False), (0.94, False)])
def test_the_last_two_windows_count(last: float, *, steady: bool) -> None:
    assert is_steady([9.0, 1.0, last]) is steady
