"""The activations that are added to an encoder's outputs, as read by the package onnx."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ccr_deploy.backends.onnxruntime.activations import expose_activations


def graph(operator: str, activations: str = "activations") -> onnx.ModelProto:
    """Return a graph that doubles its input, whose weight has a length of more than one byte when encoded."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], [activations], name="mul"),
        helper.make_node(operator, [activations, "two"], ["y"], name="last"),
    ]
    output = TensorProto.BOOL if "Greater" in operator else TensorProto.FLOAT
    return helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1000])],
            [helper.make_tensor_value_info("y", output, [1000])],
            [numpy_helper.from_array(np.full(1000, 2, dtype=np.float32), "two")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )


@pytest.mark.parametrize("name", ["a", "n" * 127, "n" * 128, "n" * 20000])
def test_the_activations_are_the_last_output(name: str) -> None:
    model = graph("GreaterOrEqual", name)
    exposed = expose_activations(model.SerializeToString())
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    assert onnx.load_from_string(exposed) == model
    values = np.arange(1000, dtype=np.float32) - 500
    session = onnxruntime.InferenceSession(exposed, providers=["CPUExecutionProvider"])
    bits, activations = session.run(None, {"x": values})
    np.testing.assert_array_equal(activations, 2 * values)
    np.testing.assert_array_equal(bits, 2 * values >= 2)


def test_a_graph_without_bits_is_not_changed() -> None:
    content = graph("Add").SerializeToString()
    assert expose_activations(content) == content
