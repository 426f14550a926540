"""Other placements of Q/DQ pairs in an INT8 graph, for `benchmarks.int8_graphs`.

The ranges of added pairs are not calibrated: kernels and speed do not depend on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ccr_deploy.graphs.passes import QuantizeInFp32Pass
from ccr_deploy.graphs.weights import step_of
from ccr_deploy.models.family import layer_of
from ccr_deploy.quantization.quantizers import is_residual_addition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SCALE = np.float16(0.05)


def behind_convolutions(model: ir.Model) -> None:
    """Quantize the output of every convolution too."""
    for node in list(model.graph):
        if node.op_type == "Conv":
            _quantize(model, node.outputs[0])


def before_relu(model: ir.Model) -> None:
    """Quantize the input of every Relu too."""
    for node in list(model.graph):
        if node.op_type == "Relu" and node.inputs[0] is not None:
            _quantize(model, node.inputs[0])


def both_summands(model: ir.Model) -> None:
    """Quantize both summands of residual additions."""
    for node in list(model.graph):
        if is_residual_addition(node) and node.inputs[0] is not None:
            _quantize(model, node.inputs[0])


def no_summand(model: ir.Model) -> None:
    """Quantize no summand of residual additions."""
    for node in model.graph:
        if node.op_type == "Add":
            _read_unquantized(model, node)


def weights_alone(model: ir.Model) -> None:
    """Quantize weights and no activation."""
    for node in model.graph:
        if node.op_type == "Add":
            _read_unquantized(model, node)
        elif node.op_type == "Conv":
            _read_unquantized(model, node, inputs=1)


def last_layers_alone(model: ir.Model) -> None:
    """Quantize only the layers with the largest weights: the last cell, and the last residual stage."""
    for node in model.graph:
        if node.op_type in {"Conv", "Add"} and not layer_of(node.name or "").startswith(("cell3", "layer4")):
            _read_unquantized(model, node)


def quantize_in_fp32(model: ir.Model) -> None:
    """Make QuantizeLinear read FP32 values."""
    QuantizeInFp32Pass()(model)


def fp32_between_pairs(model: ir.Model) -> None:
    """Compute in FP32 instead of FP16 outside of the Q/DQ pairs."""
    for value in model.graph.initializers.values():
        if value.dtype == ir.DataType.FLOAT16 and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.dtype = ir.DataType.FLOAT
    for node in model.graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT16:
                output.dtype = ir.DataType.FLOAT


PLACEMENTS: Mapping[str, Callable[[ir.Model], None]] = {
    "as stored": lambda _: None,
    "also behind every convolution": behind_convolutions,
    "also before every Relu": before_relu,
    "both summands of residual additions": both_summands,
    "no summand of residual additions": no_summand,
    "QuantizeLinear in FP32": quantize_in_fp32,
    "FP32 instead of FP16 between the pairs": fp32_between_pairs,
    "weights alone": weights_alone,
    "the last cell or residual stage alone": last_layers_alone,
}
"""Every placement by its name; each changes a graph in place."""


def placements(model: ir.Model) -> Iterator[tuple[str, ir.Model]]:
    """Yield every placement that changes a graph, and the graph as it is first."""
    seen = set()
    for name, change in PLACEMENTS.items():
        changed = ir.from_proto(ir.to_proto(model))
        change(changed)
        common.RemoveUnusedNodesPass()(changed)
        content = ir.to_proto(changed).SerializeToString()
        if content not in seen:
            seen.add(content)
            yield name, changed


def with_quantized_weights(model: ir.Model) -> ir.Model:
    """Return a copy with FP16 weights before a QuantizeLinear that gives the stored integers."""
    result = ir.from_proto(ir.to_proto(model))
    for node in list(result.graph):
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if stored is None or not stored.is_initializer():
            continue
        weight = _dequantized(result, node)
        attributes = dict(node.attributes)
        quantizer = ir.Node("", "QuantizeLinear", [weight, *node.inputs[1:]], attributes.values())
        quantizer.name, quantizer.outputs[0].name = f"{weight.name}_quantizer", f"{weight.name}_integers"
        quantizer.outputs[0].dtype = ir.DataType.INT8
        result.graph.insert_before(node, quantizer)
        node.replace_input_with(0, quantizer.outputs[0])
    common.RemoveUnusedNodesPass()(result)
    return result


def _quantize(model: ir.Model, value: ir.Value) -> None:
    """Insert a Q/DQ pair between a value and its readers."""
    readers, producer = list(value.uses()), value.producer()
    if producer is None or producer.op_type == "DequantizeLinear":
        return
    scale, zero = (
        constant(model, f"{value.name}/{kind}", array)
        for kind, array in (("scale", np.array(SCALE)), ("zero", np.array(0, np.int8)))
    )
    quantizer = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}/Q")
    dequantizer = ir.node("DequantizeLinear", [quantizer.outputs[0], scale, zero], name=f"{value.name}/DQ")
    quantizer.outputs[0].dtype = ir.DataType.INT8
    if value.dtype is not None:
        dequantizer.outputs[0].dtype = value.dtype
    for node in (quantizer, dequantizer):
        node.outputs[0].name = f"{node.name}/output"
    model.graph.insert_after(producer, [quantizer, dequantizer])
    for reader, index in readers:
        reader.replace_input_with(index, dequantizer.outputs[0])


def _read_unquantized(model: ir.Model, node: ir.Node, inputs: int | None = None) -> None:
    """Make a node read its first inputs before their Q/DQ pairs; None for all inputs."""
    for index, value in enumerate(node.inputs[:inputs]):
        producer = value.producer() if value is not None else None
        if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
            continue
        quantizer = producer.inputs[0].producer()
        node.replace_input_with(index, quantizer.inputs[0] if quantizer else _dequantized(model, producer))


def _dequantized(model: ir.Model, dequantizer: ir.Node) -> ir.Value:
    """Return the FP16 weight that a DequantizeLinear gives, as an initializer."""
    stored, step = dequantizer.inputs[0], step_of(dequantizer.outputs[0])
    assert stored is not None
    assert stored.const_value is not None
    assert step is not None
    array = (stored.const_value.numpy() * step).astype(np.float16)
    return constant(model, str(stored.name).removesuffix("_quantized"), array)


def constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Return an initializer of a graph; one of the same name is returned as it is."""
    if name in model.graph.initializers:
        return model.graph.initializers[name]
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value
