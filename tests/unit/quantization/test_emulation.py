"""Emulated FP16 and BF16, compared with NumPy's FP16."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from ccr_deploy.quantization.emulation import emulate

FACTOR = np.float16(1.0009765625)  # the next after 1
VALUES = np.linspace(-3, 3, 1001, dtype=np.float32)


@pytest.fixture
def model() -> ir.Model:
    """``y = float32(float16(x) * factor)``."""
    x = ir.val("x", ir.DataType.FLOAT, ["batch"])
    factor = ir.val("factor", const_value=ir.tensor(np.array(FACTOR), name="factor"))
    down = ir.node("Cast", [x], {"to": int(ir.DataType.FLOAT16)}, name="down")
    times = ir.node("Mul", [down.outputs[0], factor], name="times")
    up = ir.node("Cast", times.outputs, {"to": int(ir.DataType.FLOAT)}, name="up")
    for node, name, dtype in ((down, "a", 16), (times, "b", 16), (up, "y", 32)):
        node.outputs[0].name = name
        node.outputs[0].dtype = ir.DataType.FLOAT16 if dtype == 16 else ir.DataType.FLOAT
        node.outputs[0].shape = ir.Shape(["batch"])
    graph = ir.Graph(
        [x], up.outputs, nodes=[down, times, up], initializers=[factor], opset_imports={"": 18}, name="g"
    )
    return ir.Model(graph, ir_version=9)


def run(model: ir.Model) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    text = ir.to_proto(model).SerializeToString()
    (result,) = onnxruntime.InferenceSession(text, options).run(None, {"x": VALUES})
    return result


def test_emulated_fp16_equals_fp16(model: ir.Model) -> None:
    expected = (VALUES.astype(np.float16) * FACTOR).astype(np.float32)
    np.testing.assert_array_equal(run(emulate(model, "fp16")), expected)
    assert (expected != VALUES * np.float32(FACTOR)).any()


def test_emulated_bf16_rounds_to_bf16(model: ir.Model) -> None:
    low = ml_dtypes.bfloat16
    expected = (VALUES.astype(low).astype(np.float32) * np.float32(FACTOR)).astype(low).astype(np.float32)
    np.testing.assert_array_equal(run(emulate(model, "bf16")), expected)


def test_the_given_graph_is_not_changed(model: ir.Model) -> None:
    before = ir.to_proto(model).SerializeToString()
    emulate(model, "fp16")
    assert ir.to_proto(model).SerializeToString() == before
