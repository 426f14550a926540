"""Weights of a graph as they are stored, before the operators that quantize or convert them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_PASSED = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})


def initializer_of(value: ir.Value | None) -> ir.Value | None:
    """Return the initializer that a value comes from, past Q/DQ and Cast nodes; None for an activation."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in _PASSED:
            return None
        value = producer.inputs[0]
    return value if value is not None and value.is_initializer() else None
