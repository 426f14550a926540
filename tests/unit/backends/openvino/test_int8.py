"""Changes to an INT8 graph before OpenVINO compiles it."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13

from ccr_deploy.backends.openvino.int8 import limit_weights_to_7_bits


@pytest.mark.parametrize("scale_type", [np.float32, np.float16])
def test_weights_limited_to_7_bits_have_at_most_63_steps_and_nearly_the_same_values(scale_type: type) -> None:
    """The graph has the operators that OpenVINO reads Q/DQ of a weight as."""
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
    limit_weights_to_7_bits(model)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    found, steps = openvino.Core().compile_model(model, "CPU", config).create_infer_request().infer().values()
    assert np.abs(steps).max() == 63
    np.testing.assert_allclose(found.astype(np.float32), weights, atol=0.51 / 63)
