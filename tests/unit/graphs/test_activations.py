"""Logical names of activations, and parts of graphs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeBackend
from ccr_deploy.graphs.activations import activations, cut, subgraph, with_outputs


def quantized_graph() -> ir.Model:
    """image -> stem -> Q/DQ -> conv (quantized weight) -> relu -> output; stem -> tanh -> sum with relu."""
    constants = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "weight": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1),
    }
    values = {
        name: ir.Value(name=name, const_value=ir.tensor(np.asarray(array)))
        for name, array in constants.items()
    }
    for value in values.values():
        assert value.const_value is not None
        value.dtype, value.shape = value.const_value.dtype, value.const_value.shape
    image = ir.Value(name="image", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 4, 2, 2]))
    nodes: list[ir.Node] = []

    def add(operator: str, name: str, *inputs: ir.Value) -> ir.Value:
        node = ir.node(operator, list(inputs), name=name)
        node.outputs[0].name = name
        node.outputs[0].dtype = ir.DataType.FLOAT
        nodes.append(node)
        return node.outputs[0]

    pair = values["scale"], values["zero"]
    stem = add("Sigmoid", "stem", image)
    quantized = add("QuantizeLinear", "stem_QuantizeLinear_Output", stem, *pair)
    read = add("DequantizeLinear", "stem_DequantizeLinear_Output", quantized, *pair)
    weight = add("QuantizeLinear", "weight_q", values["weight"], *pair)
    conv = add("Conv", "conv", read, add("DequantizeLinear", "weight_dq", weight, *pair))
    tanh = add("Tanh", "tanh", stem)
    output = add("Add", "sum", add("Relu", "relu", conv), tanh)
    output.shape = ir.Shape(["N", 4, 2, 2])
    quantized.dtype = weight.dtype = ir.DataType.INT8
    graph = ir.Graph(
        [image], [output], nodes=nodes, initializers=list(values.values()), opset_imports={"": 19}
    )
    return ir.Model(graph, ir_version=9)


IMAGE = np.random.default_rng(0).standard_normal((2, 4, 2, 2)).astype(np.float32)


def run(model: ir.Model, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    content = ir.to_proto(model).SerializeToString()
    with OnnxRuntimeBackend().load_graph(content) as runner:
        return runner.infer(feeds)


def test_a_tensor_behind_a_pair_has_the_name_of_the_tensor_before_it() -> None:
    found = activations(quantized_graph())
    assert list(found) == ["stem", "stem after Q/DQ", "conv", "tanh", "relu", "sum"]
    assert found["stem after Q/DQ"].tensor == "stem_DequantizeLinear_Output"
    assert found["conv"].inputs == ("stem after Q/DQ",)  # not the weights


def test_extra_outputs_do_not_change_the_others() -> None:
    model = quantized_graph()
    found = run(with_outputs(model, ["stem", "relu", "sum"]), image=IMAGE)
    assert sorted(found) == ["relu", "stem", "sum"]
    assert np.array_equal(found["sum"], run(model, image=IMAGE)["sum"])
    assert [value.name for value in model.graph.outputs] == ["sum"]  # the graph itself did not change


def test_a_cut_separates_a_tensor_from_the_graph_before_it() -> None:
    found = activations(quantized_graph())
    cuttable = set(found) - {"stem after Q/DQ"}
    assert cut(found, "sum", 1, cuttable) == ("relu", "tanh")
    assert cut(found, "conv", 1, cuttable) == ("stem",)  # past the pair, which stays with the convolution
    assert set(cut(found, "sum", 2, cuttable)) == {"conv", "stem"}
    assert cut(found, "sum", 99, cuttable) == ("image",)


def test_a_sub_graph_computes_what_the_graph_computes() -> None:
    model = quantized_graph()
    whole = run(with_outputs(model, ["stem", "conv"]), image=IMAGE)
    part = subgraph(model, ["stem"], ["conv"], {"stem": IMAGE.shape})
    assert np.array_equal(run(part, stem=whole["stem"])["conv"], whole["conv"])
    assert {node.op_type for node in part.graph} == {"QuantizeLinear", "DequantizeLinear", "Conv"}
