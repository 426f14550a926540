"""Metrics of parity and accuracy, and their confidence intervals."""

import numpy as np
import pytest

from ccr_deploy.core.metrics import (
    Interval,
    cosine_similarities,
    flipped_bits,
    grouped_bootstrap_interval,
    kl_divergences,
    mcnemar_p_value,
    percentile_interval,
    softmax,
    top_k_hits,
)


def width(interval: Interval) -> float:
    return interval.high - interval.low


def test_equal_codes_have_no_flipped_bits():
    packed = np.array([[0xA5, 0x3C]], dtype=np.uint8)
    assert not flipped_bits(packed, packed).any()


def test_flipped_bits_have_the_positions_of_the_packed_bits():
    flips = flipped_bits(np.array([[0x80, 0x01]], np.uint8), np.array([[0x00, 0x03]], np.uint8))
    assert flips.dtype == np.bool_
    assert np.flatnonzero(flips[0]).tolist() == [0, 14]


def test_the_cosine_matches_a_manual_calculation():
    cosines = cosine_similarities(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]]))
    assert cosines == pytest.approx([24 / 25])


def test_the_cosine_does_not_depend_on_scale():
    cosines = cosine_similarities(np.array([[1.0, 2.0, 3.0]]), np.array([[1e-3, 2e-3, 3e-3]]))
    assert cosines == pytest.approx([1.0])


def test_opposite_logits_have_cosine_minus_one():
    assert cosine_similarities(np.array([[1.0, -2.0]]), np.array([[-1.0, 2.0]])) == pytest.approx([-1.0])


def test_the_cosine_of_equal_zero_rows_is_one():
    assert cosine_similarities(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [1.0]


def test_the_cosine_of_a_zero_row_and_another_is_zero():
    assert cosine_similarities(np.zeros((1, 2)), np.array([[1.0, 2.0]])).tolist() == [0.0]


def test_the_cosine_of_nan_logits_is_nan():
    assert np.isnan(cosine_similarities(np.array([[1.0, np.nan]]), np.array([[1.0, 2.0]]))).all()


def test_the_cosine_of_large_float16_logits_does_not_overflow():
    logits = np.full((1, 100), 1000, dtype=np.float16)
    assert cosine_similarities(logits, logits * np.float16(0.5)) == pytest.approx([1.0])


@pytest.mark.parametrize(("k", "hits"), [(1, [False, True]), (2, [True, True]), (3, [True, True])])
def test_a_label_is_a_hit_among_the_k_largest_logits(k, hits):
    logits = np.array([[0.1, 0.9, 0.5, -1.0], [3.0, 2.0, 1.0, 0.0]])
    assert top_k_hits(logits, np.array([2, 0]), k).tolist() == hits


def test_a_label_below_the_k_largest_logits_is_no_hit():
    assert top_k_hits(np.array([[5.0, 4.0, 3.0, 2.0]]), np.array([3]), 3).tolist() == [False]


def test_k_above_the_number_of_classes_always_hits():
    assert top_k_hits(np.array([[5.0, 4.0]]), np.array([1]), 5).tolist() == [True]


def test_equal_logits_rank_the_lower_class_first():
    assert top_k_hits(np.zeros((2, 3)), np.array([0, 1]), 1).tolist() == [True, False]


def test_probabilities_match_a_manual_calculation():
    probabilities = softmax(np.log(np.array([[1.0, 3.0]])))
    np.testing.assert_allclose(probabilities, [[0.25, 0.75]])


def test_large_logits_do_not_overflow():
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4]])), [[0.5, 0.5]])


def test_grouped_values_have_a_wider_interval_than_independent_values():
    values = [1.0] * 40 + [0.0] * 40
    grouped = grouped_bootstrap_interval(values, [f"region {index // 10}" for index in range(80)])
    independent = grouped_bootstrap_interval(values, [f"image {index}" for index in range(80)])
    assert width(grouped) > 2 * width(independent)


def test_the_interval_contains_the_mean():
    values = np.random.default_rng(3).random(100)
    interval = grouped_bootstrap_interval(values, [str(index % 20) for index in range(100)])
    assert interval.low < values.mean() < interval.high


def test_the_interval_of_independent_values_matches_the_normal_approximation():
    values = np.random.default_rng(4).normal(10, 2, size=400)
    interval = grouped_bootstrap_interval(values, [str(index) for index in range(400)])
    expected = 2 * 1.96 * values.std() / np.sqrt(400)
    assert width(interval) == pytest.approx(expected, rel=0.1)


def test_groups_of_unequal_size_are_weighted_by_their_size():
    values = [1.0] * 90 + [0.0] * 10
    interval = grouped_bootstrap_interval(values, ["large"] * 90 + ["small"] * 10)
    # Resamples are large+large (mean 1), large+small (0.9) or small+small (0).
    assert interval == Interval(0.0, 1.0)


def test_the_interval_is_the_same_on_every_call():
    values, groups = np.arange(30.0), [str(index // 3) for index in range(30)]
    assert grouped_bootstrap_interval(values, groups) == grouped_bootstrap_interval(values, groups)


def test_another_seed_gives_another_interval():
    values, groups = np.random.default_rng(5).random(30), [str(index) for index in range(30)]
    first = grouped_bootstrap_interval(values, groups, seed=0)
    assert first != grouped_bootstrap_interval(values, groups, seed=1)


def test_the_interval_of_one_group_has_width_0():
    assert grouped_bootstrap_interval([0.0, 1.0], ["a", "a"]) == Interval(0.5, 0.5)


def test_the_interval_does_not_depend_on_the_order_of_the_values():
    values, groups = [1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"]
    mixed = grouped_bootstrap_interval([1.0, 0.0, 1.0, 0.0], ["a", "b", "a", "b"])
    assert mixed == grouped_bootstrap_interval(values, groups)


def test_the_percentile_interval_leaves_two_and_a_half_percent_on_each_side():
    assert percentile_interval(np.arange(1001.0)) == Interval(pytest.approx(25.0), pytest.approx(975.0))


def test_the_divergence_of_equal_distributions_is_zero() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    assert kl_divergences(logits, logits + 5).tolist() == pytest.approx([0, 0], abs=1e-12)


def test_the_divergence_is_that_of_its_definition() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.125, 0.5, 0.375])
    found = kl_divergences(np.log(p)[None], np.log(q)[None])
    assert found.tolist() == pytest.approx([float((p * np.log(p / q)).sum())])


@pytest.mark.parametrize(
    ("lost", "gained", "expected"),
    # scipy.stats.binomtest(lost, lost + gained).pvalue
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (10, 25, 0.016673847800120715)],
)
def test_mcnemar_is_the_exact_test(lost, gained, expected) -> None:
    assert mcnemar_p_value(lost, gained) == pytest.approx(expected)
    assert mcnemar_p_value(gained, lost) == mcnemar_p_value(lost, gained)


def test_mcnemar_of_many_images_does_not_overflow() -> None:
    assert 0 < mcnemar_p_value(2_000, 2_100) < 1
