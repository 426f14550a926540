"""Weights of a graph as they are stored, before the operators that quantize, dequantize or convert them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

_PASSED = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})


def initializer_of(value: ir.Value | None) -> ir.Value | None:
    """Return the initializer that a value comes from, past Q/DQ and Cast nodes; None for an activation."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in _PASSED:
            return None
        value = producer.inputs[0]
    return value if value is not None and value.is_initializer() else None


def step_of(value: ir.Value | None) -> npt.NDArray[np.float32] | None:
    """Return the scale of a weight that is stored as integers; None for other values.

    Returns:
        An array that broadcasts to the weight's shape.
    """
    while value is not None and (producer := value.producer()) is not None and producer.op_type in _PASSED:
        value, *others = producer.inputs
        if producer.op_type == "DequantizeLinear" and value is not None and value.is_initializer():
            scale = others[0]
            assert value.shape is not None
            assert scale is not None
            assert scale.const_value is not None
            return per_channel(scale.const_value.numpy().astype(np.float32), producer, len(value.shape))
    return None


def per_channel(
    scale: npt.NDArray[np.float32], quantizer: ir.Node, dimensions: int
) -> npt.NDArray[np.float32]:
    """Return the scale of a QuantizeLinear or DequantizeLinear in a shape that broadcasts to the weight's.

    Args:
        scale: the scale, ``float32 []`` for all channels or ``float32 [channels]``.
        quantizer: the node, whose ``axis`` is the dimension of the channels.
        dimensions: the number of the weight's dimensions.
    """
    if scale.size == 1:
        return scale.reshape(())
    shape = [1] * dimensions
    shape[quantizer.attributes.get_int("axis", 1)] = -1
    return scale.reshape(shape)
