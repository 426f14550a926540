"""Drift: whether a series of measurements changed from its beginning to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ccr_deploy.benchmarking.scenario_results import Drift
from ccr_deploy.core.metrics import BOOTSTRAP_SAMPLES, Interval, percentile_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

LATENCY_LIMIT_PERCENT = 2.0
THROUGHPUT_LIMIT_PERCENT = 2.0
MEMORY_LIMIT_PERCENT = 5.0
PARTS = 5
MIN_INTERVALS = 2 * PARTS


def drift(values: Sequence[float], limit_percent: float, seed: int = 0) -> Drift | None:
    """Compare the medians of the first and the last fifth of a series.

    A change that is over before the last fifth, or that begins in it, is not found. The interval is by the
    circular block bootstrap, because neighbouring values are correlated: Politis and Romano, "A circular
    block-resampling procedure for stationary data", 1992; blocks of the cube root of the length.

    Args:
        values: one value for each interval of the run, in order of time.
        limit_percent: the largest change that is no drift, in percent.
        seed: seed of the resampling.

    Returns:
        None if there are fewer than ten values, or the first are zero.
    """
    series = np.asarray(values, dtype=np.float64)
    size = len(series) // PARTS
    if len(series) < MIN_INTERVALS or not np.median(series[:size]):
        return None
    first, last = series[:size], series[-size:]
    generator = np.random.default_rng(seed)
    change = _percent(np.median(first), np.median(last))
    interval = percentile_interval(_percent(_medians(first, generator), _medians(last, generator)))
    return Drift(
        first=float(np.median(first)),
        last=float(np.median(last)),
        change_percent=float(change),
        change_interval=interval,
        limit_percent=limit_percent,
        verdict=verdict(float(change), interval, limit_percent),
    )


def verdict(
    change_percent: float, interval: Interval, limit_percent: float
) -> Literal["steady", "drifts", "undecided"]:
    """Return what a change and its interval say.

    Args:
        change_percent: the change, in percent.
        interval: its 95 % interval, in percent.
        limit_percent: the largest change that is no drift, in percent.
    """
    if abs(change_percent) > limit_percent and (interval.low > 0 or interval.high < 0):
        return "drifts"
    within = -limit_percent <= interval.low and interval.high <= limit_percent
    return "steady" if within else "undecided"


def _percent(first: npt.ArrayLike, last: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return 100 * (np.asarray(last) / np.asarray(first) - 1)


def _medians(values: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the medians of resamples, made of blocks of neighbouring values."""
    count = len(values)
    length = round(count ** (1 / 3))
    starts = generator.integers(count, size=(BOOTSTRAP_SAMPLES, -(-count // length), 1))
    indices = (starts + np.arange(length)) % count
    return np.asarray(np.median(values[indices.reshape(BOOTSTRAP_SAMPLES, -1)[:, :count]], axis=1))
