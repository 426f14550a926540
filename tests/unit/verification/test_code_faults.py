"""Faults of an encoder are recognised by its codes; other differences are not explained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.verification.code_faults import CodeQuestion, bit_orders, explain_codes, normalisations

IMAGES, SHAPE = 16, (16, 2, 3)
PREPROCESSING = Preprocessing(resize_to_cover=(32, 48))
BITS = np.random.default_rng(0).integers(0, 2, (IMAGES, 16 * 2 * 3), dtype=np.uint8)
IMAGE_ARRAYS = np.random.default_rng(1).integers(0, 256, (IMAGES, 4, 4, 3), dtype=np.uint8)


def packed(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits.reshape(IMAGES, -1), axis=1)


def with_noise(bits: np.ndarray, share: float = 0.01) -> np.ndarray:
    """Flip some bits, as a lower precision does."""
    return bits ^ (np.random.default_rng(2).random(bits.shape) < share)


def question(found: np.ndarray, **values) -> CodeQuestion:
    return CodeQuestion(
        images=IMAGE_ARRAYS,
        found=found,
        expected=packed(BITS),
        shape=SHAPE,
        encode=values.pop("encode", lambda _: found),
        iterations=3,
        preprocessing=PREPROCESSING,
        **values,
    )


def channels() -> np.ndarray:
    return BITS.reshape(IMAGES, *SHAPE)


def test_swapped_channels_are_found_through_the_noise_of_a_low_precision() -> None:
    order = np.arange(16)
    order[[3, 5, 7]] = order[[5, 7, 3]]
    explanation = explain_codes(question(packed(with_noise(channels()[:, order].reshape(IMAGES, -1)))))
    assert explanation
    assert explanation.cause == "swapped-channels"
    assert "code channels 3, 5, 7 are those of 5, 7, 3" in explanation.evidence


@pytest.mark.parametrize("name", bit_orders(SHAPE))
def test_every_bit_order_is_found_and_can_be_undone(name: str) -> None:
    reorder, undo = bit_orders(SHAPE)[name]
    codes = packed(BITS)
    np.testing.assert_array_equal(undo(reorder(codes)), codes)
    explanation = explain_codes(question(reorder(codes)))
    assert explanation
    assert (explanation.cause, explanation.remaining) == ("bit-order", 0)
    assert name in explanation.evidence


def test_dead_channel_is_found_if_the_reference_varies() -> None:
    dead = channels().copy()
    dead[:, 4] = 0
    explanation = explain_codes(question(packed(dead)))
    assert explanation
    assert explanation.cause == "dead-channel"
    assert "code channels 4 always have the bits 0" in explanation.evidence


def test_channel_that_is_constant_in_the_reference_too_is_not_dead() -> None:
    expected = channels().copy()
    expected[:, 4] = 0
    found = with_noise(expected.reshape(IMAGES, -1), 0.1).reshape(channels().shape)
    found[:, 4] = 0
    asked = replace(question(packed(found)), expected=packed(expected))
    assert explain_codes(asked) is None


def test_bgr_is_found_by_giving_reversed_images_to_the_encoder() -> None:
    def encode(images: np.ndarray) -> np.ndarray:
        return packed(BITS) if np.array_equal(images, IMAGE_ARRAYS[..., ::-1]) else packed(1 - BITS)

    explanation = explain_codes(question(packed(with_noise(BITS, 0.5)), encode=encode))
    assert explanation
    assert explanation.cause == "bgr"


def test_iterations_are_found_with_pytorch() -> None:
    by_t = [
        packed(with_noise(BITS, 0.3)),
        packed(with_noise(BITS, 0.2)),
        packed(BITS),
        packed(BITS),
        packed(BITS),
    ]
    asked = question(by_t[1], by_iterations=lambda _, up_to: by_t[:up_to])
    explanation = explain_codes(asked)
    assert explanation
    assert explanation.cause == "iterations"
    assert "T = 2 instead of 3" in explanation.evidence
    assert explain_codes(replace(asked, by_iterations=None)) is None


def test_normalisation_is_found_with_pytorch() -> None:
    other = packed(with_noise(BITS, 0.2))

    def normalised_by(_: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
        return other if preprocessing.mean[0] == 0.485 else packed(BITS)

    explanation = explain_codes(question(other, normalised_by=normalised_by))
    assert explanation
    assert explanation.cause == "normalisation"
    assert "(0.485, 0.456, 0.406)" in explanation.evidence


def test_noise_alone_is_not_explained() -> None:
    assert explain_codes(question(packed(with_noise(BITS, 0.1)))) is None


def test_equal_codes_show_no_fault() -> None:
    # The fault is in other images: any hypothesis that also leaves no difference would be a false cause.
    codes = packed(BITS)
    assert explain_codes(question(codes, normalised_by=lambda *_: codes)) is None


def test_own_normalisation_is_not_among_the_others() -> None:
    assert PREPROCESSING not in list(normalisations(PREPROCESSING))
    assert len(list(normalisations(PREPROCESSING))) == 4
