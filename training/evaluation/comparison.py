"""Difference of the accuracies of checkpoints, paired by image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.metrics import Interval, grouped_bootstrap_interval
from ccr_deploy.core.records import Record
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.evaluation.results import Evaluation, IterationAccuracy


class Comparison(Record, frozen=True, kw_only=True):
    """Top-1 accuracy of one training compared with another, over pairs of checkpoints (one for each seed).

    Attributes:
        first: name of the training that is compared.
        second: name of the training that it is compared with.
        iterations: the T that both run with.
        images: images of all pairs; an image counts once for each pair.
        groups: groups of correlated images.
        first_top1_percent: top-1 of the first over all pairs, in percent.
        second_top1_percent: top-1 of the second.
        difference_points: first minus second, in percentage points.
        difference_interval_points: its 95 % interval for other test images.
        pair_differences_points: the difference of each pair.
    """

    first: str
    second: str
    iterations: int
    images: int
    groups: int
    first_top1_percent: float
    second_top1_percent: float
    difference_points: float
    difference_interval_points: Interval
    pair_differences_points: tuple[float, ...]


def compare(
    first: str, second: str, pairs: Sequence[tuple[Evaluation, Evaluation]], iterations: int
) -> Comparison:
    """Compare the top-1 accuracies of checkpoints that were evaluated on the same images.

    The interval is that of the mean difference per image, over the images of all pairs. It resamples whole
    groups; the images of a group are drawn together in all pairs that have them. So it covers the choice of
    test images, not the chance of a training, which the differences of the pairs show.

    Args:
        first: name of the training that is compared.
        second: name of the training that it is compared with.
        pairs: the evaluations of both, one pair for each seed; at least one.
        iterations: the T that both run with.

    Raises:
        WrongUsageError: if the evaluations of a pair are on other images, or lack this T.
    """
    one, other = [], []
    groups: list[str] = []
    for left, right in pairs:
        if left.images_sha256 != right.images_sha256:
            raise WrongUsageError(
                f"{first} and {second}: were evaluated on other images: evaluate both on the same ones"
            )
        one.append(_hits(left, iterations, first))
        other.append(_hits(right, iterations, second))
        # The same test images have the same groups in all pairs.
        groups += [f"{left.images_sha256}/{group}" for group in left.image_groups]
    differences = [100.0 * (mine - its) for mine, its in zip(one, other, strict=True)]
    pooled = np.concatenate(differences)
    return Comparison(
        first=first,
        second=second,
        iterations=iterations,
        images=len(pooled),
        groups=len(set(groups)),
        first_top1_percent=100 * float(np.concatenate(one).mean()),
        second_top1_percent=100 * float(np.concatenate(other).mean()),
        difference_points=float(pooled.mean()),
        difference_interval_points=grouped_bootstrap_interval(pooled, groups),
        pair_differences_points=tuple(float(each.mean()) for each in differences),
    )


def _hits(evaluation: Evaluation, iterations: int, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    entry: IterationAccuracy | None = evaluation.at(iterations)
    if entry is None:
        raise WrongUsageError(f"{name}: was not evaluated with T={iterations}: evaluate it with this T")
    return np.array(entry.top1_hits, dtype=np.float64)
