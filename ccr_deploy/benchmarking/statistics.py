"""Confidence intervals of percentiles, and of ratios and differences of medians, by bootstrapping rounds.

The runs of a round share the momentary load of the machine, so they are not independent: whole rounds are
resampled (cluster bootstrap). Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section
3.8; percentile method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.metrics import BOOTSTRAP_SAMPLES, percentile_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ccr_deploy.core.metrics import Interval

    Rounds = Sequence[npt.NDArray[np.float64]] | npt.NDArray[np.float64]
    """Samples of each round; as an array ``float64 [rounds, runs]``."""


def median_ratio_interval(numerator: Rounds, denominator: Rounds, seed: int = 0) -> Interval:
    """Return the 95 % interval of the ratio of two medians.

    The samples of both in a round are resampled together, because both share its load.

    Args:
        numerator: samples of each round in ms.
        denominator: samples of each of the same rounds in ms.
        seed: seed of the resampling.
    """
    first, second = _medians(numerator, denominator, seed)
    return percentile_interval(first / second)


def median_difference_interval(minuend: Rounds, subtrahend: Rounds, seed: int = 0) -> Interval:
    """Return the 95 % interval of the difference of two medians, in ms.

    The samples of both in a round are resampled together, because both share its load.

    Args:
        minuend: samples of each round in ms.
        subtrahend: samples of each of the same rounds in ms; their median is subtracted.
        seed: seed of the resampling.
    """
    first, second = _medians(minuend, subtrahend, seed)
    return percentile_interval(first - second)


def percentile_intervals(samples: Rounds, percentiles: Sequence[float], seed: int = 0) -> list[Interval]:
    """Return the 95 % interval of each percentile of all samples.

    Args:
        samples: samples of each round in ms.
        percentiles: percentiles, from 0 to 100.
        seed: seed of the resampling.
    """
    found = [
        np.percentile(_joined(samples, rounds), percentiles) for rounds in _resamples(len(samples), seed)
    ]
    return [percentile_interval(column) for column in np.array(found).T]


def _medians(first: Rounds, second: Rounds, seed: int) -> npt.NDArray[np.float64]:
    """Return the medians of both in each resample of rounds, ``float64 [2, resamples]``."""
    found = [
        [np.median(_joined(samples, rounds)) for samples in (first, second)]
        for rounds in _resamples(len(first), seed)
    ]
    return np.array(found).T


def _resamples(rounds: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(rounds, size=(BOOTSTRAP_SAMPLES, rounds))


def _joined(samples: Rounds, rounds: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the samples of drawn rounds in one array."""
    if isinstance(samples, np.ndarray):
        return samples[rounds].ravel()
    return np.concatenate([samples[number] for number in rounds])
