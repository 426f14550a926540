"""When an INT8 engine agrees with its graph."""

from __future__ import annotations

import math

import numpy as np
import openvino
import pytest
from openvino import opset13

from ccr_deploy.backends.openvino_int8 import hold_weights_to_7_bits, is_code_of, relative_deviation


def test_a_deviation_is_relative_to_all_values() -> None:
    expected = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    assert relative_deviation(expected, expected) == 0
    assert relative_deviation(expected + np.float32([0.5, 0]), expected) == pytest.approx(math.sqrt(0.5) / 5)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_no_limit_holds_a_deviation_that_is_no_number(broken: float) -> None:
    found = relative_deviation(np.array([1, broken]), np.array([1.0, 2.0]))
    assert not found <= 1e9


def test_a_code_is_of_its_activations_but_for_those_next_to_zero() -> None:
    activations = np.array([[[[1, -1, 1e-6, -1e-6]], [[-0.0, 2, -2, 3]]]], dtype=np.float32)
    bits = np.array([1, 0, 1, 0, 1, 1, 0, 1])

    def agrees(changed: int | None) -> bool:
        flipped = bits.copy()
        if changed is not None:
            flipped[changed] ^= 1
        return is_code_of(np.packbits(flipped)[None], activations, 1e-3)

    assert agrees(None)
    assert [agrees(index) for index in range(8)] == [False, False, True, True, True, False, False, False]


@pytest.mark.parametrize("scale_type", [np.float32, np.float16])
def test_weights_held_to_7_bits_are_at_most_63_steps_and_near_what_they_were(scale_type: type) -> None:
    """The chain that OpenVINO reads a QuantizeLinear and a DequantizeLinear of a weight as."""
    generator = np.random.default_rng(0)
    weights = generator.uniform(-1, 1, (8, 4, 1, 1)).astype(np.float32)
    weights[:, 0] = 1  # each channel's largest
    scale = np.full((8, 1, 1, 1), 1 / 127, dtype=scale_type)
    whole = scale.astype(np.float32)
    quantized = opset13.convert(
        opset13.fake_quantize(weights, -128 * whole, 127 * whole, np.float32(-128), np.float32(127), 256),
        "i8",
    )
    integers = opset13.convert(quantized, scale_type)
    result = opset13.multiply(integers, opset13.constant(scale))
    model = openvino.Model([opset13.result(result), opset13.result(quantized)], [], "weights")
    hold_weights_to_7_bits(model)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    found, steps = openvino.Core().compile_model(model, "CPU", config).create_infer_request().infer().values()
    assert np.abs(steps).max() == 63
    np.testing.assert_allclose(found.astype(np.float32), weights, atol=0.51 / 63)
