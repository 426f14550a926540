"""Passes over graphs: quantized weights are stored as the integers that QuantizeLinear computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from ccr_deploy.graphs.convolutions import quantized_convolutions
from ccr_deploy.graphs.passes import QuantizeInFp32Pass, StoreInt8WeightsPass
from ccr_deploy.graphs.weights import initializer_of, step_of

RANDOM = np.random.default_rng(0)


def quantized_convolution(weight: np.ndarray, scale: np.ndarray) -> ir.Model:
    """Return a graph of two convolutions that read one quantized weight, as unrolled iterations do."""
    constants = {
        "weight": weight,
        "weight_scale": scale,
        "weight_zero_point": np.zeros(scale.shape, np.int8),
        "scale": np.array(0.1, weight.dtype),
        "zero_point": np.array(0, np.int8),
    }
    values = {
        name: ir.Value(
            name=name,
            const_value=ir.tensor(array, name=name),
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        )
        for name, array in constants.items()
    }
    kind = values["weight"].type
    image = ir.Value(name="image", shape=ir.Shape([1, weight.shape[1], 4, 4]), type=kind)
    nodes: list[ir.Node] = []

    def add(op_type: str, name: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        nodes.append(ir.node(op_type, list(inputs), attributes, name=name))
        nodes[-1].outputs[0].name = f"{name}_output"
        return nodes[-1].outputs[0]

    def pair(value: ir.Value, name: str, *quantizer: ir.Value, **attributes: int) -> ir.Value:
        integers = add("QuantizeLinear", f"{name}_QuantizeLinear", value, *quantizer, **attributes)
        return add("DequantizeLinear", f"{name}_DequantizeLinear", integers, *quantizer, **attributes)

    inputs = pair(image, "image", values["scale"], values["zero_point"])
    weights = pair(values["weight"], "weight", values["weight_scale"], values["weight_zero_point"], axis=0)
    total = add("Add", "sum", *(add("Conv", f"conv{number}", inputs, weights) for number in (1, 2)))
    total.type, total.shape = kind, ir.Shape([1, len(weight), 2, 2])
    graph = ir.Graph(
        [image], [total], nodes=nodes, initializers=list(values.values()), opset_imports={"": 19}, name="conv"
    )
    return ir.Model(graph, ir_version=9)


def results(model: ir.Model, image: np.ndarray, extra: tuple[str, ...] = ()) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    proto.graph.output.extend(type(proto.graph.output[0])(name=name) for name in extra)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {"image": image}))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_stored_weights_are_the_integers_that_onnxruntime_computes(dtype: type[np.floating]) -> None:
    """Among them halves, which are rounded to even, and values beyond the range, which saturate."""
    weight = RANDOM.normal(size=(4, 3, 3, 3)).astype(dtype)
    scale = np.array([2**-6, 2**-7, 0.01, 0.0137], dtype)
    weight[0, 0] = (np.arange(-4, 5).reshape(3, 3) + 0.5) * 2**-6
    weight[1, 0, 0] = [300 * 2**-7, -300 * 2**-7, 127.5 * 2**-7]
    image = RANDOM.normal(size=(1, 3, 4, 4)).astype(dtype)
    model = quantized_convolution(weight, scale)
    QuantizeInFp32Pass()(model)  # the installed ONNX Runtime may truncate FP16 values
    _, expected = results(model, image, ("weight_QuantizeLinear_output",))

    stored = quantized_convolution(weight, scale)
    StoreInt8WeightsPass()(stored)
    value = stored.graph.initializers["weight_quantized"].const_value
    assert value is not None
    np.testing.assert_array_equal(value.numpy(), expected)
    assert value.numpy()[0, 0].ravel().tolist() == [-4, -2, -2, 0, 0, 2, 2, 4, 4]
    assert value.numpy()[1, 0, 0].tolist() == [127, -128, 127]


def test_stored_weights_give_the_same_results_bit_by_bit() -> None:
    weight = RANDOM.normal(size=(16, 16, 3, 3)).astype(np.float32)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    image = RANDOM.normal(size=(1, 16, 4, 4)).astype(np.float32)
    model = quantized_convolution(weight, scale)
    before = results(model, image)
    StoreInt8WeightsPass()(model)
    np.testing.assert_array_equal(results(model, image), before)


def test_only_the_integers_are_stored_and_only_weights_change() -> None:
    weight = RANDOM.normal(size=(16, 16, 3, 3)).astype(np.float16)
    scale = np.full(16, 2**-5, np.float16)
    model = quantized_convolution(weight, scale)
    assert StoreInt8WeightsPass()(model).modified
    assert [node.name for node in model.graph if node.op_type == "QuantizeLinear"] == ["image_QuantizeLinear"]
    assert "weight" not in model.graph.initializers
    assert quantized_convolutions(model) == ["conv1", "conv2"]
    assert not StoreInt8WeightsPass()(model).modified


def test_a_weight_is_found_with_its_step_stored_or_not() -> None:
    weight = RANDOM.normal(size=(16, 16, 3, 3)).astype(np.float32)
    scale = np.linspace(0.01, 0.02, 16, dtype=np.float32)
    model = quantized_convolution(weight, scale)

    def read_weight() -> ir.Value | None:
        return next(node.inputs[1] for node in model.graph if node.op_type == "Conv")

    found = initializer_of(read_weight())
    assert found is not None
    assert found.name == "weight"
    assert step_of(read_weight()) is None
    StoreInt8WeightsPass()(model)
    found, step = initializer_of(read_weight()), step_of(read_weight())
    assert found is not None
    assert found.name == "weight_quantized"
    assert step is not None
    np.testing.assert_array_equal(step, scale.reshape(16, 1, 1, 1))
