"""The verdict on planted series."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.benchmarking.scenarios.drift import drift, verdict
from ccr_deploy.core.metrics import Interval

INTERVALS = 120


def noise(percent: float, seed: int = 0, size: int = INTERVALS) -> np.ndarray:
    return 1 + np.random.default_rng(seed).normal(scale=percent / 100, size=size)


def test_a_flat_series_is_steady() -> None:
    found = drift(20 * noise(0.5), 2)
    assert found
    assert found.verdict == "steady"
    assert found.first == pytest.approx(20, rel=0.01)


def test_a_constant_series_is_steady() -> None:
    found = drift([5.0] * 10, 2)
    assert found
    assert (found.change_percent, found.change_interval, found.verdict) == (0, Interval(0, 0), "steady")


@pytest.mark.parametrize("sign", [1, -1])
def test_a_slow_drift_is_found(sign: int) -> None:
    ramp = 1 + sign * np.linspace(0, 0.06, INTERVALS)
    found = drift(20 * ramp * noise(0.5), 2)
    assert found
    assert found.verdict == "drifts"
    # The medians of the first and last fifth are 10 % and 90 % along the ramp.
    assert found.change_percent == pytest.approx(sign * 4.8, abs=0.5)
    assert found.change_interval.low <= found.change_percent <= found.change_interval.high


def test_a_thermal_step_is_found() -> None:
    step = np.where(np.arange(INTERVALS) < INTERVALS // 3, 1.0, 1.2)
    found = drift(20 * step * noise(1), 2)
    assert found
    assert found.verdict == "drifts"
    assert found.change_percent == pytest.approx(20, abs=1)


def test_noise_alone_is_no_drift() -> None:
    verdicts = [found.verdict for seed in range(50) if (found := drift(20 * noise(8, seed), 2))]
    assert verdicts.count("drifts") <= 5  # the interval has 95 %
    assert "undecided" in verdicts


def test_a_drift_below_the_limit_is_steady() -> None:
    ramp = 1 + np.linspace(0, 0.01, INTERVALS)
    found = drift(20 * ramp * noise(0.2), 2)
    assert found
    assert found.verdict == "steady"


def test_single_outliers_do_not_decide() -> None:
    series = 20 * noise(0.5)
    series[[3, 100, 119]] *= 50
    found = drift(series, 2)
    assert found
    assert found.verdict == "steady"


def test_correlated_noise_widens_the_interval() -> None:
    white = 20 * noise(1)
    waves = np.convolve(noise(1, size=INTERVALS + 7) - 1, np.ones(8), mode="valid")
    slow = 20 * (1 + waves / waves.std() / 100)
    widths = []
    for series in (white, slow):
        found = drift(series, 2)
        assert found
        widths.append(found.change_interval.high - found.change_interval.low)
    assert widths[1] > widths[0]


@pytest.mark.parametrize("series", [[1.0] * 9, [0.0] * 20], ids=["short", "not measured"])
def test_too_little_has_no_verdict(series: list[float]) -> None:
    assert drift(series, 2) is None


@pytest.mark.parametrize(
    ("change", "low", "high", "expected"),
    [
        (3.1, 1.2, 4.9, "drifts"),
        (-3.1, -4.9, -1.2, "drifts"),
        (3.1, -0.2, 6.0, "undecided"),
        (1.5, 0.5, 3.0, "undecided"),
        (1.5, 0.5, 1.9, "steady"),
    ],
)
def test_the_verdict_needs_size_and_certainty(change: float, low: float, high: float, expected: str) -> None:
    assert verdict(change, Interval(low, high), 2) == expected
