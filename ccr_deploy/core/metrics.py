"""Parity and accuracy in numbers. NumPy alone."""

from __future__ import annotations

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
    """Which bits of two packed codes ``uint8 [N, bytes]`` differ: ``bool [N, 8 * bytes]``."""
    return np.unpackbits(packed ^ other, axis=1).astype(bool)


def cosine_similarities(logits: Floats, other: Floats) -> Floats:
    """The cosine between each two rows of ``[N, classes]``: ``[N]``; 1 where both are zero."""
    one, two = logits.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    same = (logits == other).all(axis=1)
    return np.where(same, 1.0, (one * two).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny))


def top_k_hits(logits: Floats, labels: npt.NDArray[np.integer], k: int) -> npt.NDArray[np.bool_]:
    """Whether each label is among the `k` largest logits ``[N, classes]``: ``bool [N]``."""
    return (np.argsort(-logits, axis=1, kind="stable")[:, :k] == labels[:, None]).any(axis=1)


def softmax(logits: Floats) -> Floats:
    """Probabilities ``[N, classes]`` of logits ``[N, classes]``."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def grouped_bootstrap_interval(values: npt.ArrayLike, groups: Sequence[str], seed: int = 0) -> Interval:
    """The 95 % interval of the mean of `values` ``[N]``, by resampling whole groups.

    Values of one group resemble each other (crops of one region), so that resampling them one by one
    would claim too narrow an interval: the cluster bootstrap, Davison and Hinkley, "Bootstrap Methods
    and their Application", 1997, section 3.8. Percentile method, 2,000 resamples.
    """
    numbers = np.asarray(values, dtype=np.float64)
    _, membership = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(membership, weights=numbers)
    sizes = np.bincount(membership)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(BOOTSTRAP_SAMPLES, len(sums)))
    return percentile_interval(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))


def percentile_interval(samples: Floats) -> Interval:
    """The central 95 % of bootstrap samples."""
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))
