"""An FP32 graph that rounds where an FP16 graph does: ONNX Runtime computes FP16 in FP32 on a CPU.

Every operator that the FP16 graph runs in FP16 is followed by a Cast to FP16 and back, and FP16 weights
become FP32 weights of the same values. An operator's own sums are kept in FP32, as on a GPU's tensor cores.
The same with BF16 tells what a CPU's BF16 does. The rows of `ccr_deploy.core.precisions` say which graph is
rounded to what for a precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision, Rounding
from ccr_deploy.errors import PrecisionError

if TYPE_CHECKING:
    from collections.abc import Mapping


_TYPES: Mapping[Rounding, ir.DataType] = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


def emulate(model: ir.Model, precision: EnginePrecision) -> ir.Model:
    """Make the FP32 graph that answers as an engine of `precision` does where FP16 is computed faithfully.

    It is a copy of `model`, which is of the precision's `emulated_graph`; FP32 itself is not copied.

    Raises:
        PrecisionError: the graph does not say every tensor's type.
    """
    rounding = PRECISIONS[precision].rounding
    if rounding is None:
        return model
    result = ir.from_proto(ir.to_proto(model))  # a clone would share its tensors' types
    graph = result.graph
    for value in list(graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT16 and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.dtype = ir.DataType.FLOAT
    for node in list(graph):
        if node.op_type == "Cast" and node.attributes["to"].as_int() == int(ir.DataType.FLOAT16):
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        for output in node.outputs:
            if output.dtype is None and output.uses():  # or it would silently not be rounded
                raise PrecisionError(f"tensor {output.name}: the graph does not say its type")
            if output.dtype == ir.DataType.FLOAT16:
                _round(graph, node, output, _TYPES[rounding])
    return result


def _round(graph: ir.Graph, node: ir.Node, output: ir.Value, low: ir.DataType) -> None:
    """Puts Casts to the low precision and back behind one output of a node."""
    output.dtype = ir.DataType.FLOAT
    down = ir.node("Cast", [output], {"to": int(low)}, name=f"{output.name}/round_down")
    up = ir.node("Cast", down.outputs, {"to": int(ir.DataType.FLOAT)}, name=f"{output.name}/round_up")
    down.outputs[0].name, up.outputs[0].name = f"{output.name}/rounded_down", f"{output.name}/rounded"
    down.outputs[0].dtype, up.outputs[0].dtype = low, ir.DataType.FLOAT
    for reader, index in list(output.uses()):
        if reader is not down:
            reader.replace_input_with(index, up.outputs[0])
    graph.insert_after(node, [down, up])
