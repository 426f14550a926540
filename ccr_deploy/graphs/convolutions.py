"""Find the convolutions of a graph, and those that are quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def convolutions(model: ir.Model) -> list[ir.Node]:
    """Return the graph's convolutions, in the order of its nodes."""
    return [node for node in model.graph if node.op_type == "Conv"]


def quantized_convolutions(model: ir.Model) -> list[str]:
    """Return the names of the convolutions whose activations and weights both come from Q/DQ pairs."""
    return [node.name or "" for node in convolutions(model) if is_quantized(node)]


def is_quantized(node: ir.Node) -> bool:
    """Return whether a node's first two inputs, activations and weights, both come from Q/DQ pairs.

    A Cast may follow a pair if it lowers the precision. Behind one that raises it, the libraries compute the
    convolution in the type that the Cast gives: TensorRT-RTX reads the dequantized values in FP32.
    """
    return len(node.inputs) > 1 and all(_is_dequantized(value) for value in node.inputs[:2])


def _is_dequantized(value: ir.Value | None) -> bool:
    from onnx_ir import DataType

    size, producer = 0.0, _producer(value)
    while producer is not None and producer.op_type == "Cast":
        before, size = size, DataType(producer.attributes["to"].as_int()).itemsize
        if size < before:  # the Cast behind this one raises the precision
            return False
        producer = _producer(producer.inputs[0])
    if producer is None or producer.op_type != "DequantizeLinear":
        return False
    scale = producer.inputs[1]  # of the same type as the dequantized values
    dtype = scale.dtype if scale is not None else None
    return size <= (dtype or DataType.FLOAT).itemsize


def _producer(value: ir.Value | None) -> ir.Node | None:
    return value.producer() if value is not None else None
