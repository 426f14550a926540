"""Changes to an INT8 graph before OpenVINO compiles it."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13

from ccr_deploy.backends.openvino.int8 import halved_integers, limit_weights_to_7_bits

RANDOM = np.random.default_rng(0)


def test_halved_integers_have_7_bits_and_odd_ones_are_rounded_up_and_down_in_turn() -> None:
    integers = np.array([[[1, 3], [4, -5]], [[-1, 127], [-127, -128]]], np.int8)
    assert halved_integers(integers).tolist() == [[[1, 1], [2, -2]], [[0, 63], [-63, -63]]]


def test_rounding_errors_of_a_channel_cancel() -> None:
    integers = RANDOM.integers(-125, 126, (8, 16, 3, 3), dtype=np.int8)
    halved = halved_integers(integers)
    assert np.abs(halved).max() <= 63
    errors = halved - integers / 2
    assert np.abs(errors).max() == 0.5
    assert np.abs(errors.reshape(8, -1).cumsum(axis=1)).max() == 0.5


@pytest.mark.parametrize("scale_type", [np.float32, np.float16])
def test_weights_limited_to_7_bits_have_nearly_the_same_values(scale_type: type) -> None:
    """The graph has the operators that OpenVINO reads DequantizeLinear as; two convolutions share it."""
    integers = RANDOM.integers(-127, 128, (8, 4, 1, 1), dtype=np.int8)
    scale = np.logspace(-8, -1, 8, base=2).astype(scale_type).reshape(8, 1, 1, 1)
    zeros = opset13.convert(opset13.constant(np.zeros((8, 1, 1, 1), np.int8)), scale_type)
    difference = opset13.subtract(opset13.convert(opset13.constant(integers), scale_type), zeros)
    weights = opset13.multiply(difference, opset13.constant(scale))
    image = opset13.parameter([1, 4, 1, 1], scale_type)
    convolutions = [opset13.convolution(image, weights, [1, 1], [0, 0], [0, 0], [1, 1]) for _ in range(2)]
    model = openvino.Model([opset13.result(value) for value in (*convolutions, weights)], [image], "weights")
    limit_weights_to_7_bits(model)
    stored = [
        node.get_data()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    ]
    assert max(np.abs(values).max() for values in stored) <= 63
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    *_, found = compiled([np.zeros((1, 4, 1, 1), scale_type)]).values()
    assert (np.abs(found - integers * scale) <= scale).all()
    assert not np.array_equal(found, integers * scale)
