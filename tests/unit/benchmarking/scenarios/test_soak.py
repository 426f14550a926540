from __future__ import annotations

from array import array

import pytest

from ccr_deploy.benchmarking.answers import Answer, Output
from ccr_deploy.benchmarking.scenarios.messages import Started
from ccr_deploy.benchmarking.scenarios.process import expected_seconds, run_sizes
from ccr_deploy.benchmarking.scenarios.soak import KEPT_ANSWERS, KEPT_SAMPLES, SoakRun, interval_seconds
from tests.support.scenarios import scenario_settings, soak_interval


@pytest.mark.parametrize(("minutes", "seconds"), [(0.02, 1), (1, 1), (10, 10), (600, 10)])
def test_intervals_are_a_sixtieth_of_a_soak_within_limits(minutes: float, seconds: float) -> None:
    assert interval_seconds(minutes) == pytest.approx(seconds)


STARTED = Started("1.0", 0, (), ())


def test_all_samples_of_a_short_soak_are_kept() -> None:
    assert SoakRun(STARTED, samples_ms=array("d", [3.0, 1.0])).kept_samples(0) == (3.0, 1.0)


def test_samples_of_a_long_soak_are_drawn_from_all_in_order() -> None:
    run = SoakRun(STARTED, samples_ms=array("d", range(50_000)))
    kept = run.kept_samples(0)
    assert len(kept) == len(set(kept)) == KEPT_SAMPLES
    assert list(kept) == sorted(kept)
    assert sum(sample < 25_000 for sample in kept) / KEPT_SAMPLES == pytest.approx(0.5, abs=0.02)
    assert kept == run.kept_samples(0) != run.kept_samples(1)


def answer(item: int, value: int) -> Answer:
    return Answer((item,), 1, (Output("int64", (1, 1), value.to_bytes(8, "little")),))


def test_equal_answers_of_a_soak_are_kept_once() -> None:
    first = tuple(answer(item, 0) for item in range(3))
    run = SoakRun(Started("1.0", 0, first, ()), first)
    for _ in range(5):
        run.add_answers(first)
    assert [(kept.items, kept.runs) for kept in run.answers] == [((0,), 6), ((1,), 6), ((2,), 6)]


def test_answers_that_always_differ_are_drawn_from_the_whole_soak_after_the_first_ones() -> None:
    first = (answer(0, 0),)
    run = SoakRun(Started("1.0", 0, first, ()), first)
    values = range(1, 2 * KEPT_ANSWERS + 1)
    for start in range(0, len(values), KEPT_ANSWERS // 4):
        run.add_answers(answer(0, value) for value in values[start : start + KEPT_ANSWERS // 4])
        run.intervals.append(soak_interval(0))
    found = [int(kept.outputs[0].array()[0, 0]) for kept in run.answers]
    assert (found[0], len(found)) == (0, 1 + KEPT_ANSWERS)
    assert found == sorted(set(found))
    assert sum(value <= KEPT_ANSWERS for value in found) > KEPT_ANSWERS // 10


def test_a_server_is_warmed_up_for_every_batch_size() -> None:
    assert run_sizes("server", scenario_settings(), 3) == [1, 2, 3]
    assert run_sizes("multi-stream", scenario_settings(samples_per_query=8), 3) == [8]
    assert run_sizes("offline", scenario_settings(samples_per_query=None), 3) == [3]
    assert run_sizes("single-stream", scenario_settings(), 1) == [1]


def test_a_server_that_is_too_slow_is_expected_to_take_longer() -> None:
    wanted = scenario_settings(min_duration_seconds=10, rate_per_second=100)
    assert expected_seconds("server", wanted, 0.001) == 10
    assert expected_seconds("server", wanted, 0.03) == pytest.approx(30)
