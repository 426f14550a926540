"""The arithmetic of rates, with given times."""

from __future__ import annotations

import pytest

from training.loop.rates import WARM_UP_STEPS, WINDOW_STEPS, Mark, Rate, StepRates, duration_text


def marks(count: int, *, seconds: float, waited: float = 0.0, first: int = 0) -> list[Mark]:
    """Steps that each take `seconds` and wait `waited` of them."""
    return [Mark(first + n, n * seconds, n * waited, 0.0) for n in range(1, count + 1)]


def rates(found: list[Mark], total: int = 1000, images: int = 64) -> StepRates:
    result = StepRates(total, images)
    for mark in found:
        result.add(mark)
    return result


def test_a_steady_training_has_one_rate() -> None:
    found = rates(marks(50, seconds=0.5, waited=0.1))
    expected = Rate(images_per_second=pytest.approx(128), waiting_percent=pytest.approx(20))
    assert found.current == found.overall == expected
    assert found.seconds_left == pytest.approx(950 * 0.5)


def test_the_first_steps_do_not_count() -> None:
    slow = [Mark(n, 10.0 * n, 9.0 * n, 0.0) for n in range(1, WARM_UP_STEPS + 1)]
    start = slow[-1]
    fast = [Mark(start.step + n, start.seconds + n, start.waited_seconds, 0.0) for n in range(1, 21)]
    found = rates([*slow, *fast])
    assert found.overall == Rate(images_per_second=pytest.approx(64), waiting_percent=pytest.approx(0))
    assert found.seconds_left == pytest.approx(1000 - WARM_UP_STEPS - 20)


@pytest.mark.parametrize("count", range(WARM_UP_STEPS + 1))
def test_there_is_no_rate_during_the_warm_up(count: int) -> None:
    found = rates(marks(count, seconds=1))
    assert found.current is None
    assert found.overall is None
    assert found.seconds_left is None


def test_validation_counts_only_for_the_time_left() -> None:
    found = rates([Mark(n, n + 100.0 * (n > 15), 0.0, 100.0 * (n > 15)) for n in range(1, 26)])
    assert found.overall == Rate(images_per_second=pytest.approx(64), waiting_percent=0)
    # 20 steps after the warm-up took 120 seconds.
    assert found.seconds_left == pytest.approx(975 * 6)


def test_the_current_rate_forgets_what_was_long_ago() -> None:
    slow = marks(50, seconds=2)
    fast = [Mark(50 + n, slow[-1].seconds + n, 0.0, 0.0) for n in range(1, WINDOW_STEPS + 1)]
    found = rates([*slow, *fast])
    assert found.current
    assert found.overall
    assert found.current.images_per_second == pytest.approx(64)
    assert found.overall.images_per_second < 64


def test_a_resumed_training_counts_only_its_own_steps() -> None:
    found = rates(marks(50, seconds=0.5, first=900))
    assert found.overall == Rate(images_per_second=pytest.approx(128), waiting_percent=0)
    assert found.seconds_left == pytest.approx(25)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (90, "2 min"),
        (3599, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (86_390, "1 d 0 h"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
