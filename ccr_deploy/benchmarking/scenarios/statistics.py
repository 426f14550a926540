"""Percentiles of raw samples, as LoadGen computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ccr_deploy.benchmarking.scenario_results import Latencies

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

_DIGITS = 4
"""Digits of a sample in ms: 100 ns, less than a clock's own time."""
KEPT_SAMPLES = 200_000
"""Largest number of samples in the result of a scenario: some megabytes."""

_Sample = TypeVar("_Sample")


def milliseconds(nanoseconds: Sequence[int]) -> tuple[float, ...]:
    """Return samples in ms, rounded to 100 ns."""
    return tuple(round(sample / 1e6, _DIGITS) for sample in nanoseconds)


def drawn(samples: Sequence[_Sample], limit: int, seed: int) -> tuple[_Sample, ...]:
    """Return up to `limit` samples, drawn at random from all without replacement, in their order.

    Args:
        samples: all samples.
        limit: largest number of samples.
        seed: seed of the draw.
    """
    if len(samples) <= limit:
        return tuple(samples)
    indices = np.random.default_rng(seed).choice(len(samples), limit, replace=False)
    return tuple(samples[index] for index in np.sort(indices).tolist())


def percentile(ordered: npt.NDArray[np.float64], percent: float) -> float:
    """Return a percentile of samples ``float64 [samples]`` in ascending order, without interpolation."""
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))])


def latencies(samples_ms: npt.ArrayLike) -> Latencies:
    """Return the percentiles of latencies ``float [samples]`` in ms, at least one."""
    ordered = np.sort(np.asarray(samples_ms, dtype=np.float64))
    p50, p90, p95, p97, p99, p99_9 = (percentile(ordered, p) for p in (50, 90, 95, 97, 99, 99.9))
    return Latencies(
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p97_ms=p97,
        p99_ms=p99,
        p99_9_ms=p99_9,
        mean_ms=float(ordered.mean()),
        min_ms=float(ordered[0]),
        max_ms=float(ordered[-1]),
    )
