"""Metrics of parity and accuracy, and their confidence intervals. Needs only NumPy."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]

BOOTSTRAP_SAMPLES = 2000
CONFIDENCE = 0.95


class Interval(Record, frozen=True):
    """A confidence interval."""

    low: float
    high: float


def flipped_bits(packed: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Compare packed codes ``uint8 [N, bytes]``: ``bool [N, 8 * bytes]``, true for each bit that differs."""
    return np.unpackbits(packed ^ other, axis=1).astype(bool)


def cosine_similarities(logits: Floats, other: Floats) -> Floats:
    """Compute the cosine similarity of the rows of two arrays ``[N, classes]``: ``float64 [N]``.

    Equal rows have similarity 1, also if both are zero.
    """
    # In float64: the squares of large float16 logits overflow.
    one, two = logits.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    same = (logits == other).all(axis=1)
    return np.where(same, 1.0, (one * two).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny))


def top_k_hits(logits: Floats, labels: npt.NDArray[np.integer], k: int) -> npt.NDArray[np.bool_]:
    """Return whether each label is among the `k` largest logits.

    Args:
        logits: ``float [N, classes]``.
        labels: ``int [N]``, each from 0 to classes - 1.
        k: how many of the largest logits count.

    Returns:
        ``bool [N]``. Of equal logits the one of the lower class counts as larger.
    """
    return (top_k_classes(logits, k) == labels[:, None]).any(axis=1)


def softmax(logits: Floats) -> Floats:
    """Return the probabilities ``[N, classes]`` of logits ``[N, classes]``."""
    # Subtracting the maximum changes no probability and keeps the exponential from overflowing.
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def kl_divergences(logits: Floats, other: Floats) -> Floats:
    """Compute the Kullback-Leibler divergence of the classes' probabilities, in nats: ``float64 [N]``.

    sum p log(p / q), p from `logits` and q from `other`, both ``[N, classes]``.
    """
    log_p, log_q = (_log_softmax(values.astype(np.float64)) for values in (logits, other))
    # Rounding can make the divergence of equal distributions slightly negative.
    return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=1), 0)


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def top_k_classes(logits: Floats, k: int) -> npt.NDArray[np.intp]:
    """Return the classes of the `k` largest logits of each row, the largest first: ``int [N, k]``.

    Of equal logits the one of the lower class counts as larger.
    """
    # Stable, so that the order of equal logits is defined.
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def mcnemar_p_value(lost: int, gained: int) -> float:
    """Return the two-sided p-value of the exact McNemar test.

    The p-value is the probability of a split at least this uneven if both answers were equally often the
    only right one: twice the binomial tail. McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages", Psychometrika 12, 1947; exact form: Fagerland, Lydersen and Laake,
    BMC Medical Research Methodology 13:91, 2013.

    Args:
        lost: images that the first classifies correctly and the second does not.
        gained: images that the second classifies correctly and the first does not.
    """
    total = lost + gained
    tail = sum(math.comb(total, count) for count in range(min(lost, gained) + 1))
    # Whole numbers until the last division: 2 ** total overflows a float at 1,024 images.
    return min(1.0, float(Fraction(2 * tail, 2**total)))


def grouped_bootstrap_interval(values: npt.ArrayLike, groups: Sequence[str], seed: int = 0) -> Interval:
    """Compute the 95 % confidence interval of a mean by resampling whole groups (cluster bootstrap).

    Values of one group are correlated (crops of one region, frames of one video); resampling them one by one
    would give too narrow an interval. Davison and Hinkley, "Bootstrap Methods and their Application", 1997,
    section 3.8; percentile method, 2,000 resamples.

    Args:
        values: ``float [N]``.
        groups: the group of each value, by name.
        seed: seed of the resampling; the same seed gives the same interval.
    """
    return percentile_interval(bootstrap_means(np.asarray(values, dtype=np.float64), groups, seed))


def bootstrap_means(
    values: npt.NDArray[np.float64], groups: Sequence[str], seed: int = 0
) -> npt.NDArray[np.float64]:
    """Compute the means of resamples of whole groups; see `grouped_bootstrap_interval`.

    Args:
        values: ``float64 [N, ...]``; all values of one row are resampled together.
        groups: the group of each row, by name.
        seed: seed of the resampling; the same seed gives the same resamples.

    Returns:
        ``float64 [samples, ...]``.
    """
    _, membership = np.unique(np.asarray(groups), return_inverse=True)
    # Sums and sizes of groups are enough: the mean of a resample is the ratio of their totals.
    sizes = np.bincount(membership)
    sums = np.zeros((len(sizes), *values.shape[1:]))
    np.add.at(sums, membership, values)
    generator = np.random.default_rng(seed)
    means = np.empty((BOOTSTRAP_SAMPLES, *values.shape[1:]))
    for index in range(BOOTSTRAP_SAMPLES):  # one by one: all together would not fit in memory
        drawn = np.bincount(generator.integers(len(sizes), size=len(sizes)), minlength=len(sizes))
        means[index] = np.tensordot(drawn, sums, axes=1) / (drawn @ sizes)
    return means


def percentile_interval(samples: Floats) -> Interval:
    """Return the central 95 % of bootstrap samples ``float [samples]``."""
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))
