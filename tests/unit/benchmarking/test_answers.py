"""The comparison of timed answers with the reference's, for right, wrong and varying ones."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.benchmarking.answers import (
    Answer,
    Expected,
    check_answers,
    counted,
    grouped,
    wrong_answers,
)
from ccr_deploy.benchmarking.results import AnswerCheck

GENERATOR = np.random.default_rng(0)
CODES = GENERATOR.integers(0, 256, (4, 100), dtype=np.uint8)
LOGITS = GENERATOR.normal(size=(4, 10)).astype(np.float32)
ENCODER = Expected((CODES,), 0.1, 0.999)
CLASSIFIER = Expected((LOGITS,), 0.1, 0.999)
CHAIN = Expected((CODES, LOGITS), 0.1, 0.999)


def answers(*arrays: np.ndarray, first: int = 0, runs: int = 3) -> tuple[Answer, ...]:
    """Return the answers of equal runs of one batch, which begins with an item and goes round."""
    items = [(first + row) % len(CODES) for row in range(len(arrays[0]))]
    return grouped([(items, arrays)] * runs)


def flipped(codes: np.ndarray, row: int, bits: int) -> np.ndarray:
    changed = np.unpackbits(codes, axis=1)
    changed[row, :bits] ^= 1
    return np.packbits(changed, axis=1)


def test_equal_outputs_are_one_answer_with_its_number_of_runs() -> None:
    other = flipped(CODES, 0, 1)
    items = (2, 3, 0, 1)
    found = grouped([(items, (CODES,)), (items, (other,)), (items, (CODES,))])
    assert [(answer.items, answer.runs) for answer in found] == [(items, 2), (items, 1)]
    assert (found[1].outputs[0].array() == other).all()


def test_right_answers_pass() -> None:
    found = check_answers([*answers(CODES[:2]), *answers(CODES[[1, 2]], first=1)], ENCODER)
    assert found == AnswerCheck(6, 3, 0, 0.0, None, 0.0, None, 0.1, 0.999, passed=True)


def test_answers_of_several_parts_of_a_run_are_counted_together() -> None:
    right, wrong = answers(CODES, runs=2), answers(~CODES, runs=1)
    found = counted([*right, *wrong, *right])
    assert [answer.runs for answer in found] == [4, 1]
    assert check_answers(found, ENCODER).runs == 5


def test_without_a_reference_answers_are_compared_with_the_first_ones() -> None:
    alone = Expected(None, 0.1, 0.999)
    found = check_answers(answers(~CODES), alone)
    assert (found.flipped_percent, found.min_cosine, found.passed) == (None, None, True)
    changed = check_answers([*answers(CODES, LOGITS), *answers(CODES[1:2], -LOGITS[1:2], first=1)], alone)
    assert (changed.varying_images, changed.repeats_min_cosine) == (1, pytest.approx(-1.0))
    assert "the cosine of its logits with its own first ones is -1" in wrong_answers("chain: cpu", changed)


def test_each_row_of_a_batch_is_the_answer_for_its_item() -> None:
    assert check_answers(answers(CODES[[3, 0, 1]], first=3), ENCODER).passed
    assert not check_answers(answers(CODES[[0, 1, 2]], first=3), ENCODER).passed


@pytest.mark.parametrize(("bits", "passed"), [(3, True), (4, False)])
def test_the_share_of_flipped_bits_is_compared_with_its_limit(bits: int, *, passed: bool) -> None:
    found = check_answers(answers(flipped(CODES, 1, bits)), ENCODER)
    assert found.flipped_percent == pytest.approx(100 * bits / 3200)
    assert found.passed is passed


@pytest.mark.parametrize("runs", [(1, 99), (99, 1)])
def test_a_wrong_answer_counts_however_often_the_right_one_was_given(runs: tuple[int, int]) -> None:
    right, wrong = answers(CODES, runs=runs[0]), answers(~CODES, runs=runs[1])
    loose = Expected((CODES,), 60.0, None)
    for order in ([*right, *wrong], [*wrong, *right]):
        found = check_answers(order, loose)
        assert (found.runs, found.flipped_percent, found.repeats_flipped_percent) == (100, 100, 100)
        assert not found.passed


def test_logits_are_compared_by_the_worst_cosine() -> None:
    near, far = LOGITS * 2, LOGITS.copy()
    far[2] = -far[2]
    assert check_answers(answers(near), CLASSIFIER).min_cosine == pytest.approx(1.0)
    found = check_answers(answers(far), CLASSIFIER)
    assert (found.min_cosine, found.passed) == (pytest.approx(-1.0), False)


def test_logits_that_are_not_numbers_do_not_pass() -> None:
    assert not check_answers(answers(np.full_like(LOGITS, np.nan)), CLASSIFIER).passed


def test_the_logits_of_a_chain_are_compared_if_its_code_is_the_references() -> None:
    wrong = LOGITS.copy()
    wrong[1] = -wrong[1]
    assert not check_answers(answers(CODES, wrong), CHAIN).passed
    # Another code may have other logits.
    found = check_answers(answers(flipped(CODES, 1, 1), wrong), CHAIN)
    assert (found.passed, found.min_cosine) == (True, pytest.approx(1.0))
    no_code_equal = check_answers(answers(CODES ^ np.uint8(1), wrong), Expected((CODES, LOGITS), None, 0.999))
    assert (no_code_equal.min_cosine, no_code_equal.passed) == (None, True)


def test_answers_that_vary_within_the_limits_are_counted() -> None:
    loose = Expected((CODES,), 0.2, 0.999)
    found = check_answers([*answers(CODES), *answers(flipped(CODES, 2, 1))], loose)
    assert (found.varying_images, found.passed) == (1, True)


def test_one_image_whose_code_varies_does_not_pass_however_many_do_not() -> None:
    codes = np.tile(CODES, (16, 1))
    changed = flipped(codes, 5, 1)
    items = range(len(codes))
    found = check_answers(grouped([(items, (codes,)), (items, (changed,))]), Expected(None, 0.1, None))
    assert found.repeats_flipped_percent == pytest.approx(100 / 800)
    assert (found.varying_images, found.passed) == (1, False)
    assert wrong_answers("encoder: cpu", found) == (
        "encoder: cpu: wrong answers while it was timed: 0.125 % of the bits of an image differ from its own "
        "first ones (limit 0.1 %): run ccr-deploy verify"
    )


def test_answers_that_vary_more_than_the_limits_do_not_pass() -> None:
    """A chain whose code differs from the reference's has only its own first answers to compare with."""
    codes, wrong = flipped(CODES, 0, 1), -LOGITS
    loose = Expected((CODES[:1], LOGITS[:1]), None, 0.999)
    found = check_answers([*answers(codes[:1], LOGITS[:1]), *answers(codes[:1], wrong[:1])], loose)
    assert (found.min_cosine, found.repeats_min_cosine) == (None, pytest.approx(-1.0))
    assert not found.passed


def test_a_precision_without_a_limit_passes() -> None:
    assert check_answers(answers(~CODES), Expected((CODES,), None, None)).passed


def test_the_message_names_each_limit_that_is_exceeded() -> None:
    check = AnswerCheck(9, 3, 2, 6.2, 0.97, 0.0, 0.99, 2.0, 0.98, passed=False)
    assert wrong_answers("chain: openvino int8", check) == (
        "chain: openvino int8: wrong answers while it was timed: 6.2 % of the bits differ from PyTorch's "
        "(limit 2 %), the cosine of its logits with PyTorch's is 0.970000 (limit 0.98): run ccr-deploy verify"
    )
