"""Accuracy of a precision compared with FP32: flipped bits, changed predictions, lost top-1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.metrics import Interval, flipped_bits, grouped_bootstrap_interval, top_k_hits
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


class PrecisionAccuracy(Record, frozen=True):
    """Codes and predictions of one precision compared with those of FP32 on the same images.

    Attributes:
        precision: the precision that is compared with FP32.
        images: number of images.
        groups: number of groups of correlated images.
        bits: number of code bits of all images.
        flipped_bits: how many of them differ from FP32.
        equal_payloads: number of images whose code is the same as in FP32.
        same_top1: number of images with the same predicted class as in FP32.
        top1_percent: top-1 accuracy in percent; None, as the three that follow, if no image has a label.
        top1_interval_percent: its 95 % interval, bootstrapped over groups.
        top1_loss_points: top-1 of FP32 minus top-1 of this precision, in percentage points.
        top1_loss_interval_points: its 95 % interval; both precisions are resampled together.
    """

    precision: EnginePrecision
    images: int
    groups: int
    bits: int
    flipped_bits: int
    equal_payloads: int
    same_top1: int
    top1_percent: float | None
    top1_interval_percent: Interval | None
    top1_loss_points: float | None
    top1_loss_interval_points: Interval | None

    def __post_init__(self) -> None:
        if self.images < 1 or self.bits < 1:
            raise ValueError(f"{self.images} images and {self.bits} bits: at least 1 of each is needed")

    @property
    def flipped_percent(self) -> float:
        """The share of flipped bits, in percent."""
        return 100 * self.flipped_bits / self.bits

    @property
    def same_top1_percent(self) -> float:
        """The share of images with the same predicted class as in FP32, in percent."""
        return 100 * self.same_top1 / self.images


def compare_precisions(
    precision: EnginePrecision,
    codes: npt.NDArray[np.uint8],
    logits: npt.NDArray[np.float32],
    fp32_codes: npt.NDArray[np.uint8],
    fp32_logits: npt.NDArray[np.float32],
    *,
    labels: Sequence[int | None],
    groups: Sequence[str],
) -> PrecisionAccuracy:
    """Compare codes and logits with those of FP32.

    Args:
        precision: the precision of `codes` and `logits`.
        codes: packed codes ``uint8 [N, bytes]``.
        logits: ``float32 [N, classes]``.
        fp32_codes: the codes of the same images in FP32, ``uint8 [N, bytes]``.
        fp32_logits: the logits of the same images in FP32, ``float32 [N, classes]``.
        labels: the class of each image; None if it has no label, which leaves it out of the top-1 accuracy.
        groups: the group of each image, by name.
    """
    flips = flipped_bits(fp32_codes, codes)
    labelled = [index for index, label in enumerate(labels) if label is not None]
    top1 = top1_interval = loss = loss_interval = None
    if labelled:
        known = np.array([labels[index] for index in labelled], dtype=np.int64)
        members = [groups[index] for index in labelled]
        hits = top_k_hits(logits[labelled], known, 1).astype(np.float64)
        # The difference per image, so that the bootstrap resamples both precisions together.
        lost = top_k_hits(fp32_logits[labelled], known, 1) - hits
        top1, top1_interval = _mean_percent(hits, members)
        loss, loss_interval = _mean_percent(lost, members)
    return PrecisionAccuracy(
        precision=precision,
        images=len(codes),
        groups=len(set(groups)),
        bits=flips.size,
        flipped_bits=int(flips.sum()),
        equal_payloads=int((~flips.any(axis=1)).sum()),
        same_top1=int((logits.argmax(axis=1) == fp32_logits.argmax(axis=1)).sum()),
        top1_percent=top1,
        top1_interval_percent=top1_interval,
        top1_loss_points=loss,
        top1_loss_interval_points=loss_interval,
    )


def _mean_percent(values: npt.NDArray[np.float64], groups: Sequence[str]) -> tuple[float, Interval]:
    interval = grouped_bootstrap_interval(values, groups)
    return 100 * float(values.mean()), Interval(100 * interval.low, 100 * interval.high)
