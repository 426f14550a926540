"""Faults of a classifier are recognised by its logits, and mixed-up class names by its answers."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.verification.code_faults import bit_orders
from ccr_deploy.verification.logit_faults import explain_logits, shuffled_classes

SHAPE = (8, 2, 2)
RANDOM = np.random.default_rng(0)
CODES = RANDOM.integers(0, 256, (16, 4), dtype=np.uint8)
WEIGHTS = RANDOM.normal(size=(32, 6))


def classify(codes: np.ndarray) -> np.ndarray:
    return ((2.0 * np.unpackbits(codes, axis=1) - 1) @ WEIGHTS).astype(np.float32)


def test_permuted_classes_are_found() -> None:
    order = [1, 0, 2, 3, 5, 4]
    explanation = explain_logits(
        CODES, classify(CODES)[:, order], classify(CODES), SHAPE, lambda codes: classify(codes)[:, order]
    )
    assert explanation
    assert explanation.cause == "shuffled-classes"
    assert "4 of 6 classes" in explanation.evidence


@pytest.mark.parametrize("name", bit_orders(SHAPE))
def test_wrong_order_of_the_bits_that_are_read_is_found(name: str) -> None:
    _, undo = bit_orders(SHAPE)[name]

    def faulty(codes: np.ndarray) -> np.ndarray:
        return classify(undo(codes))

    explanation = explain_logits(CODES, faulty(CODES), classify(CODES), SHAPE, faulty)
    assert explanation
    assert explanation.cause == "bit-order"
    assert name in explanation.evidence


def test_other_weights_are_not_explained() -> None:
    def faulty(codes: np.ndarray) -> np.ndarray:
        return classify(codes) + RANDOM.normal(size=(len(codes), 6)).astype(np.float32)

    assert explain_logits(CODES, faulty(CODES), classify(CODES), SHAPE, faulty) is None


def test_equal_logits_show_no_fault() -> None:
    # Codes whose bits are all equal are the same in every order.
    codes = np.zeros_like(CODES)
    assert explain_logits(codes, classify(codes), classify(codes), SHAPE, classify) is None


def test_nan_is_the_fault_of_the_step_that_introduces_it() -> None:
    damaged = classify(CODES)
    damaged[3, 2] = np.nan
    explanation = explain_logits(CODES, damaged, classify(CODES), SHAPE, classify)
    assert explanation
    assert explanation.cause == "non-finite"
    assert explain_logits(CODES, damaged, damaged, SHAPE, classify) is None


def name(label: int) -> str:
    return "abcdefgh"[label]


def labels_and_answers(mapping: dict[int, int], images: int = 10) -> tuple[list[int | None], np.ndarray]:
    labels: list[int | None] = [label for label in mapping for _ in range(images)]
    answers = np.array([mapping[label] for label in mapping for _ in range(images)])
    answers[:: images // 3] = 0  # a third is answered wrongly
    return labels, answers


def test_cycle_of_classes_is_found_among_healthy_ones() -> None:
    labels, answers = labels_and_answers({0: 0, 1: 1, 2: 2, 3: 3, 4: 5, 5: 4, 6: 6, 7: 7})
    finding = shuffled_classes(answers, labels, name)
    assert finding
    assert (finding.step, finding.stage, finding.cause) == ("pytorch", "class names", "shuffled-classes")
    assert "2 classes" in finding.evidence
    assert "e as f, f as e" in finding.evidence


def test_confused_classes_are_not_shuffled() -> None:
    """Two classes with one answer, and a class that is answered as one that is not in the images."""
    labels, answers = labels_and_answers({0: 0, 1: 1, 2: 1, 3: 3, 4: 4, 5: 7})
    assert shuffled_classes(answers, labels, name) is None


def test_few_images_or_none_with_labels_say_nothing() -> None:
    labels, answers = labels_and_answers({0: 1, 1: 0}, images=3)
    assert shuffled_classes(answers, labels, name) is None
    assert shuffled_classes(answers, [None] * len(answers), name) is None
