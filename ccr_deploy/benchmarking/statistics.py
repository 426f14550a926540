"""Confidence intervals of percentiles, and of ratios and differences of medians, by bootstrapping rounds.

The runs of a round share the momentary load of the machine, so they are not independent: whole rounds are
resampled (cluster bootstrap). Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section
3.8; percentile method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.metrics import BOOTSTRAP_SAMPLES, percentile_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ccr_deploy.core.metrics import Interval

    Floats = npt.NDArray[np.float64]
    Rounds = Sequence[npt.NDArray[np.float64]] | npt.NDArray[np.float64]
    """Samples of each round; as an array ``float64 [rounds, runs]``."""

_CHUNK_SAMPLES = 4_000_000
"""Number of samples that are resampled at once: 32 MB."""


@dataclass(frozen=True)
class Medians:
    """The median of samples, and those of resamples of their rounds: ``float64 [resamples]``.

    With the same seed, the rounds that are drawn are the same, so that ratios and differences are those of
    samples of the same rounds, which share their load.
    """

    median: float
    resampled: Floats

    @classmethod
    def of(cls, samples: Rounds, seed: int = 0) -> Medians:
        """Resample whole rounds.

        Args:
            samples: samples of each round.
            seed: seed of the resampling; another one for another run.
        """
        every = samples.ravel() if isinstance(samples, np.ndarray) else np.concatenate(samples)
        return cls(float(np.median(every)), _resampled_medians(samples, seed))

    def __truediv__(self, other: Medians) -> Medians:
        return Medians(self.median / other.median, self.resampled / other.resampled)

    def __sub__(self, other: Medians) -> Medians:
        return Medians(self.median - other.median, self.resampled - other.resampled)

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        return percentile_interval(self.resampled)


def median_ratio_interval(numerator: Rounds, denominator: Rounds) -> Interval:
    """Return the 95 % interval of the ratio of two medians.

    Args:
        numerator: samples of each round in ms.
        denominator: samples of each of the same rounds in ms.
    """
    return (Medians.of(numerator) / Medians.of(denominator)).interval


def median_difference_interval(minuend: Rounds, subtrahend: Rounds) -> Interval:
    """Return the 95 % interval of the difference of two medians, in ms.

    Args:
        minuend: samples of each round in ms.
        subtrahend: samples of each of the same rounds in ms; their median is subtracted.
    """
    return (Medians.of(minuend) - Medians.of(subtrahend)).interval


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


def _resampled_medians(samples: Rounds, seed: int) -> Floats:
    drawn = _resamples(len(samples), seed)
    if not isinstance(samples, np.ndarray):
        return np.array([np.median(_joined(samples, rounds)) for rounds in drawn])
    chunks = np.array_split(drawn, math.ceil(len(drawn) * samples.size / _CHUNK_SAMPLES))
    return np.concatenate([np.median(samples[rounds].reshape(len(rounds), -1), axis=1) for rounds in chunks])


def _resamples(rounds: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(rounds, size=(BOOTSTRAP_SAMPLES, rounds))


def _joined(samples: Rounds, rounds: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the samples of drawn rounds in one array."""
    if isinstance(samples, np.ndarray):
        return samples[rounds].ravel()
    return np.concatenate([samples[number] for number in rounds])
