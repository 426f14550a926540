"""Which convolutions of a graph count as quantized."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ccr_deploy.graphs.convolutions import convolutions, quantized_convolutions

FP16, FP32 = ir.DataType.FLOAT16, ir.DataType.FLOAT


def constant(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array)
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)


def graph(
    scale: ir.DataType, data_casts: tuple[ir.DataType, ...], *, quantized_weight: bool = True
) -> ir.Model:
    """image (INT8) -> DequantizeLinear with a scale of a type -> Casts -> Conv; the weight alike."""
    image = ir.Value(name="image", type=ir.TensorType(ir.DataType.INT8), shape=ir.Shape(["N", 1, 2, 2]))
    nodes: list[ir.Node] = []

    def add(operator: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
        node = ir.node(operator, inputs, attributes=attributes, name=f"node{len(nodes)}")
        node.outputs[0].name = f"value{len(nodes)}"
        nodes.append(node)
        return node.outputs[0]

    factor = constant("scale", np.asarray(0.1, scale.numpy()))
    data = add("DequantizeLinear", [image, factor])
    weight = constant("weight", np.ones((1, 1, 1, 1), np.int8 if quantized_weight else scale.numpy()))
    if quantized_weight:
        weight = add("DequantizeLinear", [weight, factor])
    for target in data_casts:
        data = add("Cast", [data], to=target)
        weight = add("Cast", [weight], to=target)
    result = add("Conv", [data, weight])
    nodes[-1].name = "conv"
    return ir.Model(
        ir.Graph([image], [result], nodes=nodes, initializers=[factor], opset_imports={"": 19}), ir_version=9
    )


@pytest.mark.parametrize(
    ("scale", "casts", "quantized"),
    [
        (FP32, (), True),
        (FP16, (), True),
        (FP32, (FP16,), True),
        (FP32, (FP16, FP16), True),
        (FP32, (FP16, FP32), False),
        (FP16, (FP32,), False),
        (FP16, (FP32, FP16), False),
    ],
)
def test_a_cast_behind_a_pair_may_only_lower_the_precision(
    scale: ir.DataType, casts: tuple[ir.DataType, ...], *, quantized: bool
) -> None:
    model = graph(scale, casts)
    assert [node.name for node in convolutions(model)] == ["conv"]
    assert quantized_convolutions(model) == (["conv"] if quantized else [])


def test_activations_and_weights_both_have_to_be_quantized() -> None:
    assert quantized_convolutions(graph(FP32, (), quantized_weight=False)) == []
