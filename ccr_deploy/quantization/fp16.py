"""Convert an FP32 graph to FP16, with Model Optimizer's AutoCast."""

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
    """Convert a graph to FP16; the types of its inputs and outputs do not change.

    Args:
        model: the FP32 graph.
        feeds: inputs by name. AutoCast runs the graph on them, and keeps operators in FP32 whose values come
            near FP16's limits.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
        PrecisionError: if it cannot convert the graph.
    """
    excluded = [node.name or "" for node in model.graph if is_uint8_io(node.name or "")]
    return cast(model, excluded, feeds)


def fp16_nodes(model: ir.Model) -> set[str]:
    """Return the names of the nodes that compute in FP16 in an FP16 graph."""
    return {
        node.name or ""
        for node in model.graph
        if node.op_type != "Cast" and any(value.dtype == ir.DataType.FLOAT16 for value in node.outputs)
    }


def cast(model: ir.Model, excluded: Collection[str], feeds: Arrays | None) -> ir.Model:
    """Convert all nodes of a graph to FP16 except some.

    Args:
        model: the graph.
        excluded: the names of the nodes that stay in FP32.
        feeds: inputs by name, on which AutoCast checks the range of values; None to convert without a check.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
        PrecisionError: if it cannot convert the graph.
    """
    convert = autocast()
    with converting("convert this graph to FP16") as folder:
        ir.save(model, folder / "fp32.onnx")
        # AutoCast runs the graph on random floats by default, which fails for uint8 inputs. With an infinite
        # limit of values it does not run the graph.
        checks: dict[str, object] = {"data_max": np.inf}
        if feeds is not None:
            # Without `allow_pickle`, which NumPy before 2.1 would write as an array.
            np.savez(folder / "feeds.npz", **feeds)  # type: ignore[arg-type]
            checks = {"calibration_data": str(folder / "feeds.npz")}
        converted = convert(
            str(folder / "fp32.onnx"),
            low_precision_type="fp16",
            nodes_to_exclude=[f"{re.escape(node)}$" for node in excluded],  # AutoCast matches with re.match
            keep_io_types=True,
            providers=["cpu"],
            **checks,
        )
    result = ir.from_proto(converted)
    drop_unknown_sizes(result)
    share_weights(result)  # AutoCast writes a copy of a shared weight for each iteration
    StripOriginPass()(result)
    return result
