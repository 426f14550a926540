"""FP32 graph to FP16 graph, by Model Optimizer's AutoCast."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ccr_deploy.graphs.passes import StripOriginPass, drop_unknown_sizes, share_weights
from ccr_deploy.models.family import is_uint8_io
from ccr_deploy.quantization.model_optimizer import autocast, converting

if TYPE_CHECKING:
    from collections.abc import Collection

    from ccr_deploy.backends.runner import Arrays


def to_fp16(model: ir.Model, feeds: Arrays) -> ir.Model:
    """The graph with FP16 inside and its inputs and outputs unchanged.

    AutoCast runs the graph on `feeds` and leaves in FP32 what comes near FP16's limits there.

    Raises:
        MissingExtraError: Model Optimizer is not installed.
        PrecisionError: it cannot convert the graph.
    """
    kept = [node.name or "" for node in model.graph if is_uint8_io(node.name or "")]
    return cast(model, kept, feeds)


def fp16_nodes(model: ir.Model) -> set[str]:
    """The names of the nodes of an FP16 graph that compute in FP16."""
    return {
        node.name or ""
        for node in model.graph
        if node.op_type != "Cast" and any(value.dtype == ir.DataType.FLOAT16 for value in node.outputs)
    }


def cast(model: ir.Model, kept: Collection[str], feeds: Arrays | None) -> ir.Model:
    """The graph in FP16 but for the nodes of the names `kept`; without feeds nothing is checked by running.

    Raises:
        MissingExtraError: Model Optimizer is not installed.
        PrecisionError: it cannot convert the graph.
    """
    convert = autocast()
    with converting("convert this graph to FP16") as folder:
        ir.save(model, folder / "fp32.onnx")
        checks: dict[str, object] = {"data_max": np.inf}
        if feeds is not None:
            np.savez(folder / "feeds.npz", allow_pickle=False, **feeds)
            checks = {"calibration_data": str(folder / "feeds.npz")}
        converted = convert(
            str(folder / "fp32.onnx"),
            low_precision_type="fp16",
            nodes_to_exclude=[f"{re.escape(node)}$" for node in kept],
            keep_io_types=True,
            providers=["cpu"],
            **checks,
        )
    result = ir.from_proto(converted)
    drop_unknown_sizes(result)
    share_weights(result)
    StripOriginPass()(result)
    return result
