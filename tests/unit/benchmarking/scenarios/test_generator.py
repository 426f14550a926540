"""The queries of our own generator, on a stand-in for the engines that writes down its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.benchmarking.scenarios.generator import issue, offline_samples, poisson_schedule
from ccr_deploy.benchmarking.scenarios.under_test import Load
from tests.support.scenarios import Pausing, System, failed, scenario_settings

if TYPE_CHECKING:
    from collections.abc import Sequence


def test_the_schedule_depends_on_the_seed_alone() -> None:
    first, again, other = (poisson_schedule(50, 20, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:10], other[:10])


def test_the_schedule_has_its_rate_and_the_gaps_of_a_poisson_process() -> None:
    schedule = poisson_schedule(200, 500, seed=0)
    gaps = np.diff(schedule)
    assert len(schedule) / 500 == pytest.approx(200, rel=0.02)
    # An exponential distribution: standard deviation as its mean, a share of 1/e above the mean.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)
    assert (gaps > gaps.mean()).mean() == pytest.approx(np.exp(-1), abs=0.01)


def test_the_schedule_ends_with_the_first_arrival_that_is_not_before_the_end() -> None:
    schedule = poisson_schedule(3, 10, seed=4)
    assert schedule[-2] < 10 <= schedule[-1]
    assert (np.diff(schedule) > 0).all()


def test_a_single_stream_lasts_the_duration_and_has_one_sample_per_query() -> None:
    system = System()
    measured = issue(Load(system, "single-stream", scenario_settings(), 1e-5, failed))
    assert measured.duration_nanoseconds >= 0.05e9
    assert measured.queries == measured.samples == len(measured.nanoseconds) == len(system.runs)
    assert {index for run in system.runs for index in run} == set(range(5))


def test_the_smallest_number_of_queries_outlasts_the_duration() -> None:
    wanted = scenario_settings(min_duration_seconds=1e-9, min_queries=7)
    assert issue(Load(System(), "single-stream", wanted, 1e-5, failed)).queries == 7


def test_a_query_of_a_multi_stream_has_a_sample_of_each_camera() -> None:
    system = System(batch=4)
    wanted = scenario_settings(samples_per_query=8, min_duration_seconds=1e-9)
    measured = issue(Load(system, "multi-stream", wanted, 1e-5, failed))
    assert [len(run) for run in system.runs] == [8]
    assert (measured.queries, measured.samples) == (1, 8)


def test_offline_is_one_query_in_batches() -> None:
    system = System(batch=4)
    wanted = scenario_settings(samples_per_query=None)
    measured = issue(Load(system, "offline", wanted, 0.005, failed))
    assert offline_samples(wanted, 0.005) == 11
    assert [len(run) for run in system.runs] == [4, 4, 3]
    assert (measured.queries, measured.samples, len(measured.nanoseconds)) == (1, 11, 11)
    # The time of each sample counts from the one query.
    assert list(measured.nanoseconds) == sorted(measured.nanoseconds)
    assert measured.nanoseconds[-1] == measured.duration_nanoseconds


def test_a_server_takes_what_waits_up_to_the_batch() -> None:
    system = Pausing(0.02, batch=4)
    wanted = scenario_settings(rate_per_second=2000, samples_per_query=1)
    measured = issue(Load(system, "server", wanted, 1e-3, failed))
    expected = len(poisson_schedule(2000, 0.05, seed=3))
    assert measured.queries == measured.samples == len(measured.nanoseconds) == expected
    sizes = [len(run) for run in system.runs]
    assert sum(sizes) == expected
    assert max(sizes) == 4
    # The last sample waited for all runs before its own.
    last_arrival = poisson_schedule(2000, 0.05, seed=3)[-1]
    assert max(measured.nanoseconds) >= 1e9 * (0.02 * len(sizes) - last_arrival)


def test_the_same_seed_draws_the_same_samples() -> None:
    runs = []
    for _ in range(2):
        system = System(batch=64)
        issue(Load(system, "offline", scenario_settings(samples_per_query=None), 0.001, failed))
        runs.append(system.runs)
    assert runs[0] == runs[1]


def test_an_error_of_an_engine_in_the_server_reaches_the_process() -> None:
    class Broken(System):
        def run(self, indices: Sequence[int]) -> None:
            raise ValueError(f"no memory for {len(indices)} image")

    reported: list[Exception] = []  # instead of ending the process
    measured = issue(Load(Broken(), "server", scenario_settings(rate_per_second=100), 1e-3, reported.append))
    assert [str(error) for error in reported] == ["no memory for 1 image"]
    assert measured.nanoseconds == ()
