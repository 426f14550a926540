"""Errors of tensors, and what a comparison of layers concludes from them."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.graphs.activations import Activation
from ccr_deploy.verification.layers import (
    OutputCheck,
    TensorDifferences,
    channel_errors,
    first_non_finite,
    iteration_bits,
)

GENERATOR = np.random.default_rng(0)
TENSOR = GENERATOR.standard_normal((2, 8, 4, 4)).astype(np.float32)


def changed(channel: int, value: float) -> np.ndarray:
    other = TENSOR.copy()
    other[:, channel] = value
    return other


def test_equal_tensors_have_no_error() -> None:
    assert channel_errors(TENSOR, TENSOR).tolist() == [0] * 8


def test_one_wrong_channel_of_many_is_found() -> None:
    errors = channel_errors(changed(5, 0.0), TENSOR)
    assert errors.argmax() == 5
    assert errors[5] == pytest.approx(1, abs=0.4)
    assert errors[:5].max() == 0


def test_rounding_in_a_channel_near_zero_is_no_error() -> None:
    expected = changed(3, 1e-6)
    found = changed(3, -1e-6)
    assert channel_errors(found, expected).max() < 1e-5


def test_an_error_does_not_depend_on_the_scale_of_the_tensor() -> None:
    found = TENSOR * 1.01
    expected = pytest.approx(channel_errors(found, TENSOR), rel=1e-4)
    assert channel_errors(found * 1000, TENSOR * 1000) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_finite_in_one_tensor_only_is_an_infinite_error(value: float) -> None:
    for found, expected in ((changed(2, value), TENSOR), (TENSOR, changed(2, value))):
        assert channel_errors(found, expected)[2] == np.inf
        assert channel_errors(found, expected)[1] == 0
    assert channel_errors(changed(2, value), changed(2, value)).max() == 0


def test_zeros_have_no_error_unless_something_else_was_found() -> None:
    zeros = np.zeros((1, 4))
    assert channel_errors(zeros, zeros).max() == 0
    assert channel_errors(zeros + 1, zeros).min() == np.inf


def test_batches_are_compared_as_one() -> None:
    activations = {"stem": Activation("stem", "stem", "Conv", ())}
    found = changed(1, 0.5)
    differences = TensorDifferences(activations, {"stem": "stem"})
    for row in range(len(TENSOR)):
        differences.add({"stem": found[row : row + 1]}, {"stem": TENSOR[row : row + 1]})
    (tensor,) = differences.tensors()
    assert tensor.error == pytest.approx(channel_errors(found, TENSOR).max())
    assert tensor.channel == 1


def test_tensors_of_one_way_only_are_listed() -> None:
    activations = {name: Activation(name, name, "Conv", ()) for name in ("stem", "fused", "bits")}
    partners = {"stem": "stem", "fused": None, "bits": "bits"}
    differences = TensorDifferences(activations, partners)
    bits = np.zeros((1, 4), dtype=np.uint8)
    differences.add({"stem": TENSOR, "fused": TENSOR, "bits": bits}, {"stem": TENSOR, "bits": bits})
    assert [tensor.name for tensor in differences.tensors()] == ["stem"]
    assert differences.not_comparable(["stem", "missing", "bits"]) == ("fused", "missing")


def test_the_error_of_the_inputs_tells_where_a_difference_arises() -> None:
    activations = {
        "stem": Activation("stem", "stem", "Conv", ("image",)),
        "relu": Activation("relu", "relu", "Relu", ("stem",)),
    }
    differences = TensorDifferences(activations, {"stem": "stem", "relu": "relu"})
    differences.add({"stem": changed(0, 1.0), "relu": changed(0, 2.0)}, {"stem": TENSOR, "relu": TENSOR})
    stem, relu = differences.tensors()
    assert (stem.input_error, relu.input_error) == (0, stem.error)


@pytest.mark.parametrize(
    ("marked", "plain", "verdict"),
    [
        (0.1, 0.1, "equal"),
        (0.3, 0.3, "in both"),
        (0.3, 0.1, "only with extra outputs"),
        (0.1, np.nan, "only without extra outputs"),
    ],
)
def test_outputs_are_judged_with_and_without_extra_outputs(marked: float, plain: float, verdict: str) -> None:
    assert OutputCheck("logits", marked, plain, tolerance=0.2).verdict == verdict


def test_the_first_tensor_with_nan_is_named() -> None:
    tensors = {
        "bits": np.zeros(2, dtype=np.uint8),
        "stem": TENSOR,
        "cell1": changed(0, np.nan),
        "cell2": changed(1, np.inf),
    }
    assert first_non_finite(tensors) == "cell1"
    assert first_non_finite({"stem": TENSOR}) is None


def test_the_bits_of_an_iteration_are_the_signs_behind_the_binarizer() -> None:
    weight = np.array([[1.0, 0], [0, -1], [1, 1]]).reshape(3, 2, 1, 1)
    hidden_state = np.array([0.5, 0.25]).reshape(1, 2, 1, 1)
    assert iteration_bits(hidden_state, weight).ravel().tolist() == [True, False, True]
    assert iteration_bits(np.zeros((1, 2, 1, 1)), weight).all()  # zero is a 1
