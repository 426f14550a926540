"""Convert an FP32 graph to FP16, with Model Optimizer's AutoCast."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ccr_deploy.graphs.passes import StripOriginPass, drop_unknown_sizes, share_weights
from ccr_deploy.models.family import is_uint8_io
from ccr_deploy.quantization.model_optimizer import autocast, converting
from ccr_deploy.quantization.value_limit import nodes_beyond_limit

if TYPE_CHECKING:
    from collections.abc import Collection

    from ccr_deploy.backends.runner import Arrays


def to_fp16(model: ir.Model, feeds: Arrays) -> ir.Model:
    """Convert a graph to FP16; the types of its inputs and outputs do not change.

    Args:
        model: the FP32 graph.
        feeds: inputs by name. The graph runs on them, and nodes whose values come near FP16's limits stay in
            FP32.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
        PrecisionError: if it cannot convert the graph.
    """
    uint8_io = [node.name or "" for node in model.graph if is_uint8_io(node.name or "")]
    return cast(model, [*uint8_io, *nodes_beyond_limit(model, feeds)])


def fp16_nodes(model: ir.Model) -> set[str]:
    """Return the names of the nodes that compute in FP16 in an FP16 graph."""
    return {
        node.name or ""
        for node in model.graph
        if node.op_type != "Cast" and any(value.dtype == ir.DataType.FLOAT16 for value in node.outputs)
    }


def cast(model: ir.Model, excluded: Collection[str]) -> ir.Model:
    """Convert all nodes of a graph to FP16 except some.

    Args:
        model: the graph.
        excluded: the names of the nodes that stay in FP32.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
        PrecisionError: if it cannot convert the graph.
    """
    convert = autocast()
    with converting("convert this graph to FP16") as folder:
        ir.save(model, folder / "fp32.onnx")
        converted = convert(
            str(folder / "fp32.onnx"),
            low_precision_type="fp16",
            nodes_to_exclude=[f"{re.escape(node)}$" for node in excluded],  # AutoCast matches with re.match
            keep_io_types=True,
            data_max=np.inf,  # otherwise AutoCast runs the graph, to exclude `nodes_beyond_limit` itself
            providers=["cpu"],
        )
    result = ir.from_proto(converted)
    drop_unknown_sizes(result)
    share_weights(result)  # AutoCast writes a copy of a shared weight for each iteration
    StripOriginPass()(result)
    return result
