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
    return [
        node.name or ""
        for node in convolutions(model)
        if all(_is_quantized(value) for value in node.inputs[:2])
    ]


def _is_quantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Cast":  # behind a pair that was kept in FP32
        return _is_quantized(producer.inputs[0])
    return producer is not None and producer.op_type == "DequantizeLinear"
