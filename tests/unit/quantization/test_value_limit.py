"""Which nodes stay in FP32 because their values come near FP16's limits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ccr_deploy.quantization.value_limit import VALUE_LIMIT, nodes_beyond_limit


@pytest.fixture
def model() -> ir.Model:
    """``small = x + 1; large = small * 100; back = large / 100``, each a node of that name."""
    x = ir.val("x", ir.DataType.FLOAT, ["batch", 3])
    one, hundred = (
        ir.val(name, const_value=ir.tensor(np.float32(number), name=name))
        for name, number in (("one", 1), ("hundred", 100))
    )
    small = ir.node("Add", [x, one], name="small")
    large = ir.node("Mul", [small.outputs[0], hundred], name="large")
    back = ir.node("Div", [large.outputs[0], hundred], name="back")
    for node in (small, large, back):
        node.outputs[0].name = f"{node.name}_output"
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, ir.Shape(["batch", 3])
    graph = ir.Graph(
        [x],
        back.outputs,
        nodes=[small, large, back],
        initializers=[one, hundred],
        opset_imports={"": 18},
        name="g",
    )
    return ir.Model(graph, ir_version=9)


@pytest.mark.parametrize("sign", [1, -1])
def test_nodes_that_read_or_write_large_values_are_found(model: ir.Model, sign: int) -> None:
    feeds = {"x": np.array([[0, 1, 2], [3, sign * 9, 0]], np.float32)}
    assert nodes_beyond_limit(model, feeds) == ["large", "back"]


def test_every_item_counts_and_the_limit_itself_is_allowed(model: ir.Model) -> None:
    within = np.full((1, 3), VALUE_LIMIT / 100 - 1, np.float32)
    beyond = within + np.float32(0.01)
    assert nodes_beyond_limit(model, {"x": within}) == []
    assert nodes_beyond_limit(model, {"x": np.concatenate([within, beyond])}) == ["large", "back"]


def test_large_inputs_of_the_graph_count(model: ir.Model) -> None:
    feeds = {"x": np.full((1, 3), -(VALUE_LIMIT + 1), np.float32)}
    assert nodes_beyond_limit(model, feeds) == ["small", "large", "back"]
