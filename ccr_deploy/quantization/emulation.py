"""Emulate FP16 and BF16 on a CPU, with an FP32 graph that rounds the same values.

ONNX Runtime computes FP16 graphs in FP32 on a CPU, so that running one does not show the effect of FP16. In
the emulating graph, a Cast to FP16 and back follows every operator that the FP16 graph computes in FP16, and
FP16 weights become FP32 weights of the same values. Sums within an operator stay in FP32, as on a GPU's
tensor cores. BF16 is emulated in the same way. The rows of `ccr_deploy.core.precisions` define for each
precision the graph to start from and the rounding.
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
    """Return an FP32 graph with the results of an engine that computes in `precision`.

    Args:
        model: the graph in the precision's `emulated_graph`. It is copied, or returned unchanged for FP32.
        precision: the precision to emulate.

    Raises:
        PrecisionError: if the graph does not state the type of every tensor.
    """
    rounding = PRECISIONS[precision].rounding
    if rounding is None:
        return model
    result = ir.from_proto(ir.to_proto(model))  # not a clone, which would share the types of tensors
    graph = result.graph
    for value in list(graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT16 and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.dtype = ir.DataType.FLOAT
    for node in list(graph):
        if node.op_type == "Cast" and node.attributes["to"].as_int() == int(ir.DataType.FLOAT16):
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        for output in node.outputs:
            if output.dtype is None and output.uses():  # without the error it would silently not be rounded
                raise PrecisionError(f"tensor {output.name}: the graph does not state its type")
            if output.dtype == ir.DataType.FLOAT16:
                _round(graph, node, output, _TYPES[rounding])
    return result


def _round(graph: ir.Graph, node: ir.Node, output: ir.Value, low: ir.DataType) -> None:
    """Insert Casts to the low precision and back behind one output of a node."""
    output.dtype = ir.DataType.FLOAT
    down = ir.node("Cast", [output], {"to": int(low)}, name=f"{output.name}/round_down")
    up = ir.node("Cast", down.outputs, {"to": int(ir.DataType.FLOAT)}, name=f"{output.name}/round_up")
    down.outputs[0].name, up.outputs[0].name = f"{output.name}/rounded_down", f"{output.name}/rounded"
    down.outputs[0].dtype, up.outputs[0].dtype = low, ir.DataType.FLOAT
    for reader, index in list(output.uses()):
        if reader is not down:
            reader.replace_input_with(index, up.outputs[0])
    graph.insert_after(node, [down, up])
