"""Limits of flipped bits, derived from the flip tolerance of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.bundle.tolerance import FlippedKind


class ModelLimit(NamedTuple):
    """The limit of a gate for one model, and where it comes from."""

    value: float
    reason: str


def flip_limit(
    kind: FlippedKind, budget_points: float, *, fixed: float, is_largest: bool = False
) -> Callable[[Bundle], ModelLimit]:
    """Return a limit of flipped bits: the share at which they would cost a budget of top-1 accuracy.

    Args:
        kind: the flips that the gate counts.
        budget_points: the budget, in percentage points.
        fixed: the limit in percent for a bundle whose flip tolerance was not measured, or on too few images.
        is_largest: whether the limit is never larger than `fixed`: the flips are a fault even if they cost
            little.
    """

    def limit(bundle: Bundle) -> ModelLimit:
        tolerance = bundle.manifest.tolerance
        if tolerance is None:
            return ModelLimit(fixed, "fixed: the bundle has no flip tolerance")
        if tolerance.too_few_labels:
            return ModelLimit(fixed, f"fixed: {tolerance.too_few_labels}")
        share = tolerance.tolerated(kind, budget_points)
        if is_largest and share.percent > fixed:
            return ModelLimit(fixed, "fixed: rounding does not reach that far")
        budget = f"{budget_points:g} point{'' if budget_points == 1 else 's'}"
        if not share.is_reached:
            return ModelLimit(
                share.percent, f"flip tolerance: {budget} lost at {share.percent:.2g} % or more"
            )
        low, high = share.interval_percent.low, share.interval_percent.high
        return ModelLimit(
            share.percent,
            f"flip tolerance: {budget} lost at {share.percent:.2g} %, "
            f"95 % interval {low:.2g} to {high:.2g} %",
        )

    return limit
