"""Flip tolerance: which bits are flipped, what their loss is, and which shares a budget allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec.structs import replace

from ccr_deploy.bundle.tolerance import (
    KINDS,
    MIN_LABELLED_GROUPS,
    FlipCost,
    FlipTolerance,
    classes_after_flips,
    flip,
    flip_tolerance,
    level_bits,
    monotone,
    order_of,
)
from ccr_deploy.codec.contract import pack_code
from ccr_deploy.core.metrics import Interval, flipped_bits
from ccr_deploy.core.records import convert, to_builtins
from ccr_deploy.errors import CalibrationError

IMAGES, BITS = 80, 256
LOSSES = arrays(np.float64, (5, 7), elements=st.floats(-50, 100))


@pytest.fixture(scope="module")
def margins() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((IMAGES, BITS)).astype(np.float32)


@pytest.fixture(scope="module")
def codes(margins) -> np.ndarray:
    return pack_code(margins)


def matched_filter(codes: np.ndarray) -> np.ndarray:
    """A classifier with two classes: which half of the bits has more ones; flips change close decisions."""
    bits = np.unpackbits(codes, axis=1).astype(np.float32)
    return np.stack([bits[:, : BITS // 2].sum(axis=1), bits[:, BITS // 2 :].sum(axis=1)], axis=1)


def measured(codes, margins, labels, groups=None) -> FlipTolerance:
    classes = classes_after_flips(codes, margins, matched_filter)
    names = groups or [str(index) for index in range(len(codes))]
    return flip_tolerance(classes, BITS, labels=labels, groups=names, images="random codes")


def right_answers(codes) -> list[int | None]:
    return [int(answer) for answer in matched_filter(codes).argmax(axis=1)]


def tolerance(*losses: float, shares=(1.0, 2.0, 4.0), groups: int = 50) -> FlipTolerance:
    """Record a curve for both kinds, with intervals from half of each loss to twice of it."""
    costs = [
        FlipCost(kind, share, 50, loss, Interval(loss / 2, 2 * loss))
        for kind in KINDS
        for share, loss in zip(shares, losses, strict=True)
    ]
    return FlipTolerance("images", 100, groups, tuple(costs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 13, BITS])
def test_exactly_the_number_of_bits_is_flipped_in_every_image(codes, margins, kind, count) -> None:
    changed = flip(codes, order_of(kind, codes, margins), count)
    assert (flipped_bits(codes, changed).sum(axis=1) == count).all()


def test_near_zero_flips_the_smallest_margins(codes, margins) -> None:
    flips = flipped_bits(codes, flip(codes, order_of("near zero", codes, margins), 20))
    sizes = np.abs(margins)
    for row, chosen in zip(sizes, flips, strict=True):
        assert row[chosen].max() < row[~chosen].min()


def test_random_flips_do_not_depend_on_margins_or_batches(codes, margins) -> None:
    whole = order_of("random", codes, margins)
    parts = [order_of("random", codes[part], -margins[part]) for part in (slice(0, 7), slice(7, None))]
    assert (whole == np.concatenate(parts)).all()
    chosen = flipped_bits(codes, flip(codes, whole, BITS // 4))
    assert np.abs(margins)[chosen].mean() == pytest.approx(np.abs(margins).mean(), rel=0.05)


def test_levels_are_whole_bits_and_small_codes_have_fewer() -> None:
    assert level_bits(6272) == [16, 31, 63, 125, 251, 502, 1004, 2007]
    assert level_bits(96) == [1, 2, 4, 8, 15, 31]
    assert level_bits(8) == [1, 3]


def test_a_classifier_that_ignores_the_code_loses_nothing(codes, margins) -> None:
    classes = classes_after_flips(codes, margins, lambda changed: np.tile([1.0, 0.0], (len(changed), 1)))
    found = flip_tolerance(
        classes, BITS, labels=[0] * IMAGES, groups=[str(i) for i in range(IMAGES)], images=""
    )
    assert {(cost.same_top1_percent, cost.top1_loss_points) for cost in found.costs} == {(100, 0)}
    share = found.tolerated("near zero", 1)
    assert (share.percent, share.is_reached) == (100 * level_bits(BITS)[-1] / BITS, False)


def test_losses_are_those_of_the_flipped_codes(codes, margins) -> None:
    found = measured(codes, margins, right_answers(codes))
    for kind in KINDS:
        last = found.curve(kind)[-1]
        changed = flip(codes, order_of(kind, codes, margins), level_bits(BITS)[-1])
        same = 100 * np.mean(np.array(right_answers(codes)) == right_answers(changed))
        assert last.same_top1_percent == pytest.approx(same)
        assert last.top1_loss_points == pytest.approx(100 - same)
        assert 0 < same < 100


def test_unlabelled_images_do_not_count_for_the_loss(codes, margins) -> None:
    labels = right_answers(codes)
    half = [label if index < IMAGES // 2 else None for index, label in enumerate(labels)]
    found = measured(codes, margins, half)
    alone = measured(codes[: IMAGES // 2], margins[: IMAGES // 2], labels[: IMAGES // 2])
    assert (found.image_count, found.labelled_groups) == (IMAGES, IMAGES // 2)
    assert [cost.top1_loss_points for cost in found.costs] == [cost.top1_loss_points for cost in alone.costs]


def test_without_labels_classes_are_compared_but_no_loss_is_known(codes, margins) -> None:
    found = measured(codes, margins, [None] * IMAGES)
    assert found.too_few_labels == "0 labelled groups, 30 are needed"
    assert all(cost.top1_loss_points is None for cost in found.costs)
    assert found.costs[-1].same_top1_percent < 100
    with pytest.raises(ValueError, match="without labels"):
        found.tolerated("near zero", 1)


def test_groups_are_counted_instead_of_images(codes, margins) -> None:
    groups = [f"video {index % 12}" for index in range(IMAGES)]
    found = measured(codes, margins, right_answers(codes), groups)
    assert found.too_few_labels == "12 labelled groups, 30 are needed"
    assert tolerance(0, 1, 2, groups=MIN_LABELLED_GROUPS).too_few_labels is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_margins_that_are_not_finite_are_refused(codes, margins, value) -> None:
    damaged = margins.copy()
    damaged[3, 5] = value
    with pytest.raises(CalibrationError, match="NaN or infinite on these images"):
        classes_after_flips(codes, damaged, matched_filter)


@given(LOSSES)
def test_a_monotone_curve_never_falls_and_is_at_least_0(losses) -> None:
    fitted = monotone(losses)
    assert (np.diff(fitted, axis=1) >= -1e-9).all()
    assert (fitted >= 0).all()


@given(LOSSES)
def test_a_curve_that_is_monotone_stays(losses) -> None:
    rising = np.sort(np.abs(losses), axis=1)
    np.testing.assert_allclose(monotone(rising), rising, atol=1e-9)


def test_levels_that_fall_are_averaged() -> None:
    np.testing.assert_allclose(monotone(np.array([-2, 1, 3, 1, 5.0])), [0, 1, 2, 2, 5])
    np.testing.assert_allclose(monotone(np.array([-3, 1, -1.0])), [0, 0, 0])


def test_no_flips_cost_nothing_and_losses_are_interpolated() -> None:
    found = tolerance(0, 1, 5)
    shares = (0, 1, 1.5, 2, 3, 4, 60)
    assert [found.top1_loss_points("random", share) for share in shares] == [0, 0, 0.5, 1, 3, 5, 5]


@pytest.mark.parametrize(("budget", "percent"), [(0.5, 1.5), (1, 2), (3, 3), (5, 4)])
def test_a_budget_allows_the_share_that_costs_it(budget, percent) -> None:
    found = tolerance(0, 1, 5).tolerated("near zero", budget)
    assert (found.percent, found.is_reached) == (pytest.approx(percent), True)
    assert found.interval_percent.low <= percent <= found.interval_percent.high


def test_the_interval_of_a_share_comes_from_that_of_the_losses() -> None:
    found = tolerance(0, 1, 5).tolerated("near zero", 2)
    # The losses are at most 0, 2, 10 and at least 0, 0.5, 2.5.
    assert found.interval_percent.low == pytest.approx(2)
    assert found.interval_percent.high == pytest.approx(3.5)


def test_a_budget_that_is_not_reached_allows_the_largest_share() -> None:
    found = tolerance(0, 0.1, 0.2).tolerated("near zero", 1)
    assert (found.percent, found.interval_percent, found.is_reached) == (4, Interval(4, 4), False)


def test_the_interval_covers_the_share_of_a_known_curve() -> None:
    """Images lose their answer at a share of their own: the curve of the population is known."""
    levels = np.array(level_bits(6272))
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(15):
        limits = draw.exponential(20.0, 300) * 62.72  # bits at which each image's answer changes
        classes = np.concatenate([np.zeros((300, 1), int), np.tile(levels >= limits[:, None], 2)], axis=1)
        names = [str(index) for index in range(300)]
        found = flip_tolerance(classes, 6272, labels=[0] * 300, groups=names, images="")
        share = found.tolerated("near zero", 10)
        covered += share.interval_percent.low <= -20 * np.log(0.9) <= share.interval_percent.high
    assert covered >= 12  # 95 % of 15 are 14


def test_a_tolerance_reads_back_as_written() -> None:
    found = tolerance(0, 1, 5)
    assert convert(FlipTolerance, to_builtins(found)) == found


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (tolerance(0, 1, 5).curve("near zero"), "no costs of random flips"),
        (tuple(reversed(tolerance(0, 1, 5).costs)), "do not increase"),
        (
            (*tolerance(0, 1, 5).costs[:-1], replace(tolerance(0, 1, 5).costs[-1], top1_loss_points=None)),
            "a loss of accuracy is missing",
        ),
    ],
)
def test_a_damaged_tolerance_is_refused(costs, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tolerance(0, 1, 5), costs=costs)
