"""The result of `benchmarks.recovery`, and its table."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record
from ccr_deploy.reporting.table import Table


class RecoveryVariant(Record, frozen=True):
    """Flips and top-1 accuracy of one way to INT8 for each checkpoint, compared with plain calibration.

    `flipped_percent` is the share of the code's bits that differ from FP32 with the same weights.
    `flip_ratio` is its mean over the checkpoints in multiples of that of plain calibration.
    `top1_gain_points` is the mean top-1 accuracy minus that of plain calibration, in percentage points; its
    95 % interval resamples groups of images, all checkpoints together.
    """

    name: str
    flipped_percent: tuple[float, ...]
    top1_percent: tuple[float, ...]
    flip_ratio: float
    top1_gain_points: float
    top1_gain_interval_points: Interval


class Recovery(Record, frozen=True):
    """All variants, measured on the same test images with several checkpoints."""

    schema_version: int
    model: str
    checkpoints: Annotated[int, Meta(ge=1)]
    images: int
    groups: int
    bits: int
    fine_tuning_steps: int
    variants: tuple[RecoveryVariant, ...]


def recovery_table(result: Recovery) -> Table:
    """Return the table, one row per variant."""
    return Table(
        title="Recovery",
        columns=("variant", "bits flipped", "of plain", "top-1", "gain over plain", "95 % interval"),
        rows=tuple(
            (
                variant.name,
                f"{np.mean(variant.flipped_percent):.3f} %",
                f"{variant.flip_ratio:.2f}",
                f"{np.mean(variant.top1_percent):.2f} %",
                f"{variant.top1_gain_points:+.2f}",
                _interval(variant.top1_gain_interval_points),
            )
            for variant in result.variants
        ),
        note=f"{result.model}: means over {result.checkpoints} checkpoints on {result.images} test crops of "
        f"{result.groups} regions, {result.bits} bits; bits flipped: against FP32 with the same weights; "
        f"gain: points of top-1, paired by image; fine-tuning: {result.fine_tuning_steps} steps",
    )


def _interval(interval: Interval) -> str:
    return f"{interval.low:+.2f} to {interval.high:+.2f}"
