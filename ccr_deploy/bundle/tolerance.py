"""Flip tolerance: what flipped code bits cost a model in changed classes and lost accuracy.

The bits of each image's code are flipped in steps, once those whose pre-binarization activations are nearest
to zero, once random ones, and the classifier runs on the result. Rounding flips bits near zero; a fault in
the computation flips bits wherever they are. The resulting curves say how many flips of each kind a model
tolerates.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, get_args

import numpy as np
from msgspec import Meta

from ccr_deploy.core.metrics import Interval, bootstrap_means, percentile_interval
from ccr_deploy.core.records import Record
from ccr_deploy.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.floating]
    Ints = npt.NDArray[np.int64]

FlippedKind = Literal["near zero", "random"]
KINDS: tuple[FlippedKind, ...] = get_args(FlippedKind)

LEVELS_PERCENT = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Shares of flipped bits that are measured; each is rounded to a whole number of bits per image."""

MIN_LABELLED_GROUPS = 30
"""With fewer groups, bootstrapped intervals are too narrow to rely on.

Cameron, Gelbach and Miller, "Bootstrap-Based Improvements for Inference with Clustered Errors", Review of
Economics and Statistics 90 (2008), study 5 to 30 groups as the case in which they fail.
"""


class FlipCost(Record, frozen=True):
    """The cost of one share of flipped bits of one kind, on the images of a `FlipTolerance`.

    Attributes:
        kind: which bits of each image are flipped: those nearest to zero, or random ones.
        flipped_percent: the share of bits that are flipped.
        same_top1_percent: the share of images whose top-1 class stays the same.
        top1_loss_points: lost top-1 accuracy in percentage points, made monotone: it does not fall if more
            bits are flipped, and is at least 0. None, as the next, if no image has a label.
        top1_loss_interval_points: its 95 % interval, bootstrapped over groups.
    """

    kind: FlippedKind
    flipped_percent: Annotated[float, Meta(gt=0, le=100)]
    same_top1_percent: Annotated[float, Meta(ge=0, le=100)]
    top1_loss_points: Annotated[float, Meta(ge=0, le=100)] | None
    top1_loss_interval_points: Interval | None


class ToleratedShare(NamedTuple):
    """The share of flipped bits, in percent, at which the loss of accuracy reaches a budget.

    `is_reached` is False if the loss stays below the budget up to the largest share that was measured,
    which is then `percent`. The upper end of the 95 % interval may be that share too.
    """

    percent: float
    interval_percent: Interval
    is_reached: bool


class FlipTolerance(Record, frozen=True):
    """The flip tolerance of a model, measured on `image_count` images.

    Attributes:
        images: a description of the images.
        image_count: number of images.
        labelled_groups: number of groups of correlated images, counting only images with a label.
        costs: the two curves, each from the smallest share of flipped bits to the largest.
    """

    images: str
    image_count: Annotated[int, Meta(ge=1)]
    labelled_groups: Annotated[int, Meta(ge=0)]
    costs: tuple[FlipCost, ...]

    def __post_init__(self) -> None:
        for kind in KINDS:
            curve = self.curve(kind)
            if not curve:
                raise ValueError(f"no costs of {kind} flips")
            if any(more.flipped_percent <= less.flipped_percent for less, more in pairwise(curve)):
                raise ValueError(f"the shares of {kind} flips do not increase")
        for cost in self.costs:
            known = {cost.top1_loss_points is not None, cost.top1_loss_interval_points is not None}
            if known != {self.labelled_groups > 0}:
                raise ValueError(
                    f"{self.labelled_groups} labelled groups, but a loss of accuracy "
                    + ("is missing" if self.labelled_groups else "is given")
                )

    @property
    def too_few_labels(self) -> str | None:
        """Why no limit can be derived, such as ``12 labelled groups, 30 are needed``; None if one can."""
        if self.labelled_groups >= MIN_LABELLED_GROUPS:
            return None
        plural = "" if self.labelled_groups == 1 else "s"
        return f"{self.labelled_groups} labelled group{plural}, {MIN_LABELLED_GROUPS} are needed"

    def curve(self, kind: FlippedKind) -> tuple[FlipCost, ...]:
        """Return the costs of one kind of flips, from the smallest share to the largest."""
        return tuple(cost for cost in self.costs if cost.kind == kind)

    def top1_loss_points(self, kind: FlippedKind, flipped_percent: float) -> float:
        """Return the loss of accuracy that is predicted for a share of flipped bits.

        It is interpolated linearly between the measured shares; no flips cost nothing. Beyond the largest
        measured share, the loss is at least what is returned.

        Raises:
            ValueError: if no image had a label.
        """
        shares, losses, _, _ = self._losses(kind)
        return float(np.interp(flipped_percent, shares, losses))

    def tolerated(self, kind: FlippedKind, budget_points: float) -> ToleratedShare:
        """Return the share of flipped bits at which the loss of accuracy reaches a budget, with its interval.

        On every bootstrap resample, the curve is monotone. So the loss at a share is at least the budget
        exactly if the resample's tolerated share is at most that share, and the quantiles of tolerated
        shares are where the quantiles of the losses reach the budget.

        Raises:
            ValueError: if no image had a label.
        """
        shares, losses, lows, highs = self._losses(kind)
        percent = _crossing(shares, losses, budget_points)
        low, high = _crossing(shares, highs, budget_points), _crossing(shares, lows, budget_points)
        return ToleratedShare(percent, Interval(low, high), is_reached=losses[-1] >= budget_points)

    def _losses(self, kind: FlippedKind) -> tuple[list[float], list[float], list[float], list[float]]:
        """Return the shares, and the loss at each with the ends of its interval, from no flips on."""
        rows = [(0.0, 0.0, 0.0, 0.0)]
        for cost in self.curve(kind):
            if cost.top1_loss_points is None or cost.top1_loss_interval_points is None:
                raise ValueError("the flip tolerance was measured on images without labels")
            interval = cost.top1_loss_interval_points
            rows.append((cost.flipped_percent, cost.top1_loss_points, interval.low, interval.high))
        shares, losses, lows, highs = map(list, zip(*rows, strict=True))
        return shares, losses, lows, highs


def _crossing(shares: Sequence[float], losses: Sequence[float], budget: float) -> float:
    """Return the first share at which a monotone curve reaches the budget; the last if it does not."""
    after = next((index for index, loss in enumerate(losses) if loss >= budget), None)
    if after is None:
        return shares[-1]
    if after == 0:
        return shares[0]
    return float(np.interp(budget, losses[after - 1 : after + 1], shares[after - 1 : after + 1]))


def level_bits(bits: int) -> list[int]:
    """Return how many of a code's bits are flipped at each level, at least one: few bits have few levels."""
    return sorted({max(1, round(percent * bits / 100)) for percent in LEVELS_PERCENT})


def flip(codes: Bytes, order: Ints, count: int) -> Bytes:
    """Flip the first bits of an order in each code.

    Args:
        codes: packed codes ``uint8 [N, bytes]``.
        order: positions of bits ``int [N, code bits]``, such as `order_of` returns.
        count: number of bits to flip in each code.

    Returns:
        ``uint8 [N, bytes]``.
    """
    bits = np.unpackbits(codes, axis=1)
    chosen = order[:, :count]
    np.put_along_axis(bits, chosen, 1 - np.take_along_axis(bits, chosen, axis=1), axis=1)
    return np.packbits(bits, axis=1)


def order_of(kind: FlippedKind, codes: Bytes, margins: Floats) -> Ints:
    """Return the order in which the bits of each code are flipped.

    Args:
        kind: "near zero" begins with the smallest margin in absolute value. "random" depends on the content
            of the code alone, so that it does not matter how images are divided into batches.
        codes: packed codes ``uint8 [N, bytes]``.
        margins: the margins of their bits, ``float [N, code bits]``.

    Returns:
        Positions ``int [N, code bits]``.
    """
    if kind == "near zero":
        return np.argsort(np.abs(margins), axis=1, kind="stable")
    seeds = (int.from_bytes(code.tobytes(), "big") for code in codes)
    return np.stack([np.random.default_rng(seed).permutation(margins.shape[1]) for seed in seeds])


def classes_after_flips(codes: Bytes, margins: Floats, classify: Callable[[Bytes], Floats]) -> Ints:
    """Classify codes as they are, and after flips of each kind and level.

    Args:
        codes: packed codes ``uint8 [N, bytes]``.
        margins: the margins of their bits, ``float [N, code bits]``.
        classify: codes ``uint8 [N, bytes]`` to logits ``float [N, classes]``.

    Returns:
        Top-1 classes ``int [N, 1 + 2 * levels]``: without flips, then for each kind of `KINDS` those of each
        level of `level_bits`.

    Raises:
        CalibrationError: if a margin is NaN or infinite.
    """
    if not np.isfinite(margins).all():
        raise CalibrationError(
            "the encoder's pre-binarization activations are NaN or infinite on these images, so the flip "
            "tolerance cannot be measured: check the checkpoint's weights"
        )
    columns = [classify(codes).argmax(axis=1)[None]]
    for kind in KINDS:
        order = order_of(kind, codes, margins)
        flipped = [flip(codes, order, count) for count in level_bits(margins.shape[1])]
        # All levels in one run: many small runs take several times as long.
        columns.append(classify(np.concatenate(flipped)).argmax(axis=1).reshape(len(flipped), -1))
    return np.concatenate(columns).T


def flip_tolerance(
    classes: Ints, bits: int, *, labels: Sequence[int | None], groups: Sequence[str], images: str
) -> FlipTolerance:
    """Return the flip tolerance that the classes of all images show.

    Args:
        classes: top-1 classes ``int [N, 1 + 2 * levels]``, of `classes_after_flips`.
        bits: number of bits of a code.
        labels: the class of each image; None if it has no label, which leaves it out of the accuracy.
        groups: the group of each image, by name.
        images: a description of the images.
    """
    same = 100 * (classes[:, 1:] == classes[:, :1]).mean(axis=0)
    labelled = [index for index, label in enumerate(labels) if label is not None]
    members = [groups[index] for index in labelled]
    levels = level_bits(bits)
    costs = []
    for index, kind in enumerate(KINDS):
        part = slice(index * len(levels), (index + 1) * len(levels))
        losses: list[tuple[float | None, Interval | None]] = [(None, None)] * len(levels)
        if labelled:
            known = np.array([labels[position] for position in labelled], dtype=np.int64)[:, None]
            hits = classes[labelled] == known
            losses = list(_losses_of(hits[:, :1] - hits[:, 1:][:, part].astype(np.float64), members))
        costs += [
            FlipCost(kind, 100 * count / bits, float(share), *loss)
            for count, share, loss in zip(levels, same[part], losses, strict=True)
        ]
    return FlipTolerance(images, len(classes), len(set(members)), tuple(costs))


def _losses_of(lost: npt.NDArray[np.float64], groups: Sequence[str]) -> list[tuple[float, Interval]]:
    """Return the monotone loss at each level in points, with its interval.

    The difference per image `lost` ``[N, levels]`` is resampled, so that a resample has the same images with
    and without flips; the curve of each resample is made monotone like the measured one.
    """
    losses = 100 * monotone(lost.mean(axis=0))
    resampled = 100 * monotone(bootstrap_means(lost, groups))
    return [
        (float(loss), percentile_interval(samples)) for loss, samples in zip(losses, resampled.T, strict=True)
    ]


def monotone(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the nearest curves, by least squares, that never fall and are at least 0.

    This is isotonic regression by its max-min formula: Robertson, Wright and Dykstra, "Order Restricted
    Statistical Inference", 1988, section 1.4. The running maximum would be monotone too, but the largest
    error of one level would raise all levels after it, so that the limits became the stricter the more
    levels are measured.

    Args:
        losses: ``float [..., levels]``.

    Returns:
        ``float [..., levels]``.
    """
    levels = losses.shape[-1]
    sums = np.concatenate([np.zeros_like(losses[..., :1]), losses.cumsum(axis=-1)], axis=-1)

    def mean(first: int, last: int) -> npt.NDArray[np.float64]:
        return (sums[..., last + 1] - sums[..., first]) / (last + 1 - first)

    fitted = [
        np.max([np.min([mean(j, k) for k in range(i, levels)], axis=0) for j in range(i + 1)], axis=0)
        for i in range(levels)
    ]
    return np.maximum(np.stack(fitted, axis=-1), 0.0)
