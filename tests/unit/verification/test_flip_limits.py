"""Limits of flipped bits: from the flip tolerance if it can be relied on, else fixed; and why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ccr_deploy.bundle.tolerance import KINDS, FlipCost, FlipTolerance
from ccr_deploy.core.metrics import Interval
from ccr_deploy.verification.flip_limits import flip_limit
from ccr_deploy.verification.gates import GateLimits

CURVES = {"near zero": (0.0, 0.5, 4.5), "random": (0.02, 8.0, 20.0)}
SHARES = (1.0, 4.0, 8.0)


def bundle(groups: int = 30, factor: float = 1.0) -> Any:
    costs = tuple(
        FlipCost(kind, share, 90, factor * loss, Interval(factor * loss / 2, factor * loss * 2))
        for kind in KINDS
        for share, loss in zip(SHARES, CURVES[kind], strict=True)
    )
    return SimpleNamespace(manifest=SimpleNamespace(tolerance=FlipTolerance("val", 60, groups, costs)))


def test_the_limit_is_where_the_loss_reaches_the_budget() -> None:
    found = flip_limit("near zero", 1, fixed=2)(bundle())
    assert found.value == pytest.approx(4.5)
    assert found.reason == "flip tolerance: 1 point lost at 4.5 %, 95 % interval 4 to 5.5 %"


def test_a_loss_that_is_not_reached_gives_the_largest_measured_share() -> None:
    found = flip_limit("near zero", 0.3, fixed=2)(bundle(factor=0.01))
    assert found == (8.0, "flip tolerance: 0.3 points lost at 8 % or more")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            SimpleNamespace(manifest=SimpleNamespace(tolerance=None)),
            "fixed: the bundle has no flip tolerance",
        ),
        (bundle(groups=12), "fixed: 12 labelled groups, 30 are needed"),
    ],
)
def test_without_a_reliable_tolerance_the_limit_is_fixed_and_says_why(given: Any, reason: str) -> None:
    assert flip_limit("near zero", 1, fixed=2)(given) == (2, reason)
    assert flip_limit("random", 1, fixed=0.1, is_largest=True)(given) == (0.1, reason)


def test_flips_far_from_zero_are_limited_even_if_they_cost_little() -> None:
    limit = flip_limit("random", 1, fixed=0.1, is_largest=True)
    assert limit(bundle()) == (0.1, "fixed: rounding does not reach that far")
    strict = limit(bundle(factor=1000))
    assert strict.value == pytest.approx(0.05)
    assert strict.reason.startswith("flip tolerance: 1 point lost at 0.05 %")


def test_each_precision_has_its_own_budget_and_fp32_stays_fixed() -> None:
    def limit(precision, given=bundle()):  # noqa: B008 -- a record
        return GateLimits.of([precision], given).by_name["max-flipped-percent"]

    assert limit("fp32") == 0.1
    assert limit("int8") == limit("bf16") == pytest.approx(4.5)
    assert limit("fp16") == pytest.approx(1 + 3 * 0.3 / 0.5)
