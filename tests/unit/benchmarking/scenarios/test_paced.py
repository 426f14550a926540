from __future__ import annotations

import pytest

from ccr_deploy.benchmarking.scenarios.messages import PacedRounds
from ccr_deploy.benchmarking.scenarios.paced import (
    MIN_ROUNDS,
    compare,
    frames_per_round,
    next_frame,
    run_paced,
)
from tests.support.scenarios import Pausing, System, scenario_settings


@pytest.mark.parametrize(
    ("done", "expected"),
    [(130, (200, 0)), (200, (200, 0)), (201, (300, 1)), (300, (300, 1)), (450, (500, 3))],
)
def test_frames_that_arrive_during_a_run_are_dropped(done: int, expected: tuple[int, int]) -> None:
    assert next_frame(100, done, 100) == expected


@pytest.mark.parametrize(("rate", "frames"), [(0.5, 2), (5, 5), (60, 10)])
def test_a_round_has_the_frames_of_a_second(rate: float, frames: int) -> None:
    assert frames_per_round(rate) == frames


def test_steady_runs_and_frames_alternate() -> None:
    system = System()
    rounds = run_paced(system, scenario_settings(rate_per_second=200, min_duration_seconds=1e-9))
    assert [len(part) for part in rounds.steady] == [10] * MIN_ROUNDS
    assert [len(part) for part in rounds.frames] == [10] * MIN_ROUNDS
    assert len(system.runs) == MIN_ROUNDS * (2 + 10 + 10)
    # Nineteen pauses at least between the first and the last frame of both rounds.
    assert rounds.duration_nanoseconds > 18 * 1e9 / 200


def test_a_camera_that_is_too_fast_drops_frames() -> None:
    wanted = scenario_settings(rate_per_second=1000, min_duration_seconds=1e-9)
    assert run_paced(Pausing(0.004), wanted).dropped >= 20


def test_the_ratio_is_that_of_the_medians_with_an_interval_over_rounds() -> None:
    steady = tuple((1_000_000, 1_100_000, 1_050_000 + offset) for offset in range(0, 8000, 1000))
    frames = tuple((2_000_000, 2_200_000, 2_100_000 + offset) for offset in range(0, 8000, 1000))
    found = compare(PacedRounds(steady, frames, dropped=3, duration_nanoseconds=1), seed=0)
    assert found.ratio == pytest.approx(2.0, rel=0.01)
    assert found.ratio_interval.low <= found.ratio <= found.ratio_interval.high
    assert (found.rounds, found.frames, found.dropped_frames) == (8, 24, 3)
    assert len(found.steady_samples_ms) == 24


def test_frames_as_fast_as_steady_runs_have_an_interval_around_one() -> None:
    rounds = tuple(
        tuple(1_000_000 + 1000 * ((7 * run + 3 * part) % 11) for run in range(10)) for part in range(9)
    )
    found = compare(PacedRounds(rounds, rounds, dropped=0, duration_nanoseconds=1), seed=0)
    assert found.ratio == 1
    assert found.ratio_interval.low <= 1 <= found.ratio_interval.high
