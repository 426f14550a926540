"""What a precision costs: flipped bits, changed answers, lost accuracy, against FP32."""

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
    """One precision's codes and answers against those of FP32, on the same images.

    `top1_loss_points` is FP32's top-1 less this precision's, in percentage points; its interval is
    bootstrapped over groups of images, both precisions resampled together. The last four are None
    where no image has a label.
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
            raise ValueError(f"an accuracy over {self.images} images and {self.bits} bits")

    @property
    def flipped_percent(self) -> float:
        """Flipped bits in percent of all."""
        return 100 * self.flipped_bits / self.bits

    @property
    def same_top1_percent(self) -> float:
        """Images that are answered as in FP32, in percent."""
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
    """Compares codes ``uint8 [N, bytes]`` and logits ``[N, classes]`` with those of FP32.

    `labels` and `groups` are the images'; accuracy counts those that have a label.
    """
    flips = flipped_bits(fp32_codes, codes)
    labelled = [index for index, label in enumerate(labels) if label is not None]
    top1 = top1_interval = loss = loss_interval = None
    if labelled:
        known = np.array([labels[index] for index in labelled], dtype=np.int64)
        members = [groups[index] for index in labelled]
        hits = top_k_hits(logits[labelled], known, 1).astype(np.float64)
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
