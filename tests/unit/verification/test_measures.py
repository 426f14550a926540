"""Measurements of batches: what they count, and that they join to those of the whole set."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ccr_deploy.codec.contract import pack_code
from ccr_deploy.core.records import convert, to_builtins
from ccr_deploy.verification.answers import Answers, BatchAnswers
from ccr_deploy.verification.collected import BatchResult, Collected
from ccr_deploy.verification.measures import (
    FAR_MARGIN,
    NO_ANSWER,
    TIE_MARGIN,
    Comparison,
    Measures,
    comparisons,
    measure,
    top1_classes,
)
from ccr_deploy.verification.parity import (
    chain_accuracies,
    code_parity,
    logit_parity,
    non_finite_values,
)
from ccr_deploy.verification.shown import ShownBatch
from ccr_deploy.verification.stored_measures import StoredArrays, from_stored, to_stored

IMAGES, CHANNELS, CLASSES = 20, 4, 6
BITS = CHANNELS * 8
ENGINE = Comparison("engine", "pytorch")
LABELS = [number % CLASSES for number in range(IMAGES)]


def answers(margins: np.ndarray, logits: np.ndarray) -> Answers:
    return Answers(pack_code(margins), {"classifier": logits, "chain": logits})


@pytest.fixture
def margins() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(IMAGES, BITS)).astype(np.float32)


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(IMAGES, CLASSES)).astype(np.float32)


def batch(margins, logits, engine: Answers, first: int = 0, last: int = IMAGES) -> BatchAnswers:
    def part(found: Answers) -> Answers:
        return Answers(
            found.codes[first:last], {name: values[first:last] for name, values in found.logits.items()}
        )

    images = np.zeros((last - first, 2, 2, 3), np.uint8)
    ways = {"pytorch": part(answers(margins, logits)), "engine": part(engine)}
    return BatchAnswers(images, margins[first:last], ways, {})


def measured(margins, logits, engine: Answers) -> Measures:
    return measure(batch(margins, logits, engine), LABELS, CHANNELS)


def test_every_way_is_compared_with_the_first_and_with_the_one_before() -> None:
    assert comparisons(["pytorch", "fp32-graph", "graph", "engine"]) == [
        ("fp32-graph", "pytorch"),
        ("graph", "pytorch"),
        ("engine", "pytorch"),
        ("graph", "fp32-graph"),
        ("engine", "graph"),
    ]
    assert comparisons(["pytorch", "engine"]) == [("engine", "pytorch")]


def test_flips_are_counted_per_image_channel_and_margin(margins, logits) -> None:
    other = margins.copy()
    flipped = [(0, 3), (0, 9), (7, 31)]
    for image, bit in flipped:
        other[image, bit] *= -1
    parity = code_parity(ENGINE, measured(margins, logits, answers(other, logits)).codes[ENGINE])
    assert (parity.images, parity.bits, parity.flipped_bits) == (IMAGES, IMAGES * BITS, 3)
    assert parity.equal_payloads == IMAGES - 2
    assert parity.channel_flips == (1, 1, 0, 1)
    assert sum(parity.channel_ones) == (other >= 0).sum()
    assert sum(bar.bits for bar in parity.margins) == parity.bits
    lows = [bar.low for bar in parity.margins]
    for image, bit in flipped:
        bar = parity.margins[np.searchsorted(lows, abs(margins[image, bit]), side="right") - 1]
        assert bar.flipped_bits >= 1


def test_flips_near_zero_are_rounding_and_others_are_not(margins, logits) -> None:
    def kind(chosen: np.ndarray) -> str:
        other = np.where(chosen, -margins, margins)
        return code_parity(ENGINE, measured(margins, logits, answers(other, logits)).codes[ENGINE]).flip_kind

    assert kind(np.zeros_like(margins, bool)) == "none"
    assert kind(np.abs(margins) < 0.1) == "rounding"
    assert kind(np.random.default_rng(2).random(margins.shape) < 0.1) == "not rounding"


@pytest.mark.parametrize(("margin", "unexplained"), [(TIE_MARGIN / 2, 0), (TIE_MARGIN * 2, 1)])
def test_only_flips_within_rounding_are_explained(margins, logits, margin, unexplained) -> None:
    margins[2, 5] = margin
    other = margins.copy()
    other[2, 5] = -1
    parity = code_parity(ENGINE, measured(margins, logits, answers(other, logits)).codes[ENGINE])
    assert (parity.flipped_bits, parity.unexplained_flips) == (1, unexplained)


@pytest.mark.parametrize(("margin", "far"), [(FAR_MARGIN * 0.99, 0), (-FAR_MARGIN * 1.01, 1), (np.nan, 1)])
def test_flips_far_from_zero_are_counted(margins, logits, margin, far) -> None:
    margins[2, 5] = margin
    other = margins.copy()
    other[2, 5] = -1.0 if margin >= 0 else 1.0  # the bit of NaN is 0
    parity = code_parity(ENGINE, measured(margins, logits, answers(other, logits)).codes[ENGINE])
    assert (parity.flipped_bits, parity.far_flips) == (1, far)
    assert parity.far_flipped_percent == 100 * far / parity.bits


def test_equal_logits_have_no_distance(margins, logits) -> None:
    parity = logit_parity(
        "chain", ENGINE, measured(margins, logits, answers(margins, logits)).logits["chain", ENGINE]
    )
    assert (parity.max_difference, parity.max_kl_divergence, parity.same_top1) == (0, 0, IMAGES)
    assert parity.min_cosine == parity.same_top5_percent / 100 == 1


def test_one_changed_logit_is_measured(margins, logits) -> None:
    other = logits.copy()
    best = int(other[4].argmax())
    other[4, best] -= 100
    parity = logit_parity(
        "chain", ENGINE, measured(margins, logits, answers(margins, other)).logits["chain", ENGINE]
    )
    assert parity.max_difference == pytest.approx(100, rel=1e-5)
    assert parity.mean_difference == pytest.approx(100 / logits.size, rel=1e-5)
    assert parity.same_top1 == IMAGES - 1
    # The worst of six classes leaves the top five of one image, and another one takes its place.
    assert parity.same_top5_percent == pytest.approx(100 * (1 - 1 / 5 / IMAGES))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_located_and_are_no_answer(margins, logits, value) -> None:
    other = logits.copy()
    other[3, 1] = other[5, 2] = value
    measures = measured(margins, logits, answers(margins, other))
    names = [f"{number}.png" for number in range(IMAGES)]
    found = {(entry.way, entry.output): entry for entry in non_finite_values(measures, names)}
    assert [*found] == [("engine", "classifier"), ("engine", "chain")]
    chain = found["engine", "chain"]
    assert (chain.values, chain.images, chain.first_image) == (2, 2, "3.png")
    assert measures.answers["engine"].top1[3] == NO_ANSWER
    assert not logit_parity("chain", ENGINE, measures.logits["chain", ENGINE]).min_cosine >= -1


def test_nan_in_the_activations_of_the_reference_is_located(margins, logits) -> None:
    margins[6] = np.nan
    measures = measured(margins, logits, answers(margins, logits))
    (found,) = non_finite_values(measures, [str(number) for number in range(IMAGES)])
    assert (found.way, found.output, found.values, found.first_image) == ("pytorch", "activations", BITS, "6")


def test_lost_and_gained_images_are_counted(margins, logits) -> None:
    wrong = logits.copy()
    right = np.eye(CLASSES, dtype=np.float32)[LABELS] * 10
    wrong[:4] = right[:4]
    other = wrong.copy()
    other[0] = -right[0]
    other[10:13] = right[10:13]
    measures = measure(batch(margins, wrong, answers(margins, other)), LABELS, CHANNELS)
    accuracies, (change,) = chain_accuracies(measures, LABELS, [str(number) for number in range(IMAGES)])
    already = int((wrong[10:13].argmax(axis=1) == LABELS[10:13]).sum())
    assert (change.lost, change.gained) == (1, 3 - already)
    loss = accuracies[0].top1_percent - accuracies[1].top1_percent
    assert change.top1_loss_points == pytest.approx(loss)
    assert change.top1_loss_interval_points.low <= loss <= change.top1_loss_interval_points.high


def test_without_labels_there_is_no_accuracy(margins, logits) -> None:
    nothing = [None] * IMAGES
    measures = measure(batch(margins, logits, answers(margins, logits)), nothing, CHANNELS)
    assert chain_accuracies(measures, nothing, ["a"] * IMAGES) == ((), ())


@pytest.mark.parametrize("size", [1, 3, 8])
def test_joined_batches_are_the_whole(margins, logits, size) -> None:
    engine = answers(margins[::-1].copy(), logits[::-1].copy())
    whole = measured(margins, logits, engine)
    collected = Collected(IMAGES)
    for number, first in enumerate(range(0, IMAGES, size)):
        part = slice(first, min(first + size, IMAGES))
        names = tuple(map(str, range(part.start, part.stop)))
        found = measure(batch(margins, logits, engine, part.start, part.stop), LABELS[part], CHANNELS)
        # As in a part file, whose JSON keeps every digit.
        read = convert(
            tuple[StoredArrays, ...], json.loads(json.dumps(to_builtins(to_stored(found)))), nan=True
        )
        measures = from_stored(read, len(names), None)
        collected.add(
            BatchResult(
                number, "00", names, tuple(LABELS[part]), ("a",) * len(names), measures, ShownBatch((), ())
            )
        )
    joined = collected.measures
    assert collected.labels == LABELS
    assert code_parity(ENGINE, joined.codes[ENGINE]) == code_parity(ENGINE, whole.codes[ENGINE])
    for stage in ("classifier", "chain"):
        found = logit_parity(stage, ENGINE, joined.logits[stage, ENGINE])
        assert found == logit_parity(stage, ENGINE, whole.logits[stage, ENGINE])
    accuracies = chain_accuracies(joined, LABELS, ["a"] * IMAGES)
    assert accuracies == chain_accuracies(whole, LABELS, ["a"] * IMAGES)


def test_of_equal_logits_the_lower_class_is_the_answer() -> None:
    assert top1_classes(np.zeros((1, CLASSES), np.float32)).tolist() == [0]
