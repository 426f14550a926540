"""Accuracy of a precision compared with FP32, on arrays small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.bundle.accuracy import compare_precisions

FP32_CODES = np.array([[0b1111_0000], [0b0000_0000], [0b1010_1010], [0b1111_1111]], np.uint8)
CODES = np.array([[0b1111_0001], [0b0000_0000], [0b0101_1010], [0b1111_1111]], np.uint8)
FP32_LOGITS = np.array([[3, 1], [3, 1], [1, 3], [1, 3]], np.float32)
LOGITS = np.array([[1, 3], [3, 1], [1, 3], [3, 1]], np.float32)


def compare(labels, groups=("a", "a", "b", "b"), logits=LOGITS):
    return compare_precisions(
        "int8", CODES, logits, FP32_CODES, FP32_LOGITS, labels=labels, groups=list(groups)
    )


def test_bits_payloads_and_predictions_are_counted() -> None:
    found = compare([None] * 4)
    assert (found.bits, found.flipped_bits, found.equal_payloads, found.same_top1) == (32, 5, 2, 2)
    assert found.flipped_percent == pytest.approx(15.625)
    assert found.same_top1_percent == 50
    assert (found.images, found.groups) == (4, 2)


def test_without_labels_there_is_no_accuracy() -> None:
    found = compare([None] * 4)
    assert found.top1_percent is found.top1_loss_points is None
    assert found.top1_interval_percent is found.top1_loss_interval_points is None


def test_a_loss_counts_images_that_only_fp32_classifies_correctly() -> None:
    found = compare([0, 0, 1, 1])
    assert found.top1_percent == 50
    assert found.top1_loss_points == 50
    assert found.top1_loss_interval_points is not None
    assert (found.top1_loss_interval_points.low, found.top1_loss_interval_points.high) == (50, 50)


def test_a_gain_is_a_negative_loss() -> None:
    assert compare([1, 0, 1, 0]).top1_loss_points == -50


def test_only_labelled_images_count_for_accuracy() -> None:
    found = compare([0, None, None, None])
    assert (found.images, found.top1_percent, found.top1_loss_points) == (4, 0, 100)


def test_equal_predictions_have_a_loss_of_0_with_interval_0() -> None:
    found = compare([0, 1, 0, 1], logits=FP32_LOGITS)
    assert found.top1_loss_points == 0
    assert found.top1_loss_interval_points is not None
    assert (found.top1_loss_interval_points.low, found.top1_loss_interval_points.high) == (0, 0)
