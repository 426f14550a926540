"""Find the nodes of a graph whose values come near FP16's limits.

Model Optimizer's AutoCast can do it too, but it keeps the values of all tensors on all images at once: an
export of ``ccr-layer1`` took 4.7 GiB. Here the graph runs on one image at a time, and only the largest
absolute value of each tensor is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from ccr_deploy.errors import MissingExtraError
from ccr_deploy.graphs.activations import with_outputs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ccr_deploy.backends.runner import Arrays

VALUE_LIMIT = 512.0
"""The largest absolute value in FP16: AutoCast's default, far below FP16's 65,504, for other images."""


def nodes_beyond_limit(model: ir.Model, feeds: Arrays) -> list[str]:
    """Return the names of the nodes that read or write a value beyond `VALUE_LIMIT`, without weights.

    Args:
        model: the graph, in FP32.
        feeds: inputs by name, ``[N, …]``; the graph runs on one item at a time.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed.
    """
    largest = _largest_values(model, feeds)
    return [
        node.name or ""
        for node in model.graph
        if any(
            largest.get(str(value.name), 0) > VALUE_LIMIT for value in (*node.inputs, *node.outputs) if value
        )
    ]


def _largest_values(model: ir.Model, feeds: Arrays) -> dict[str, float]:
    """Return the largest absolute value of each input and activation, by tensor."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "converting to FP16") from None
    observed = with_outputs(model, (str(value.name) for node in model.graph for value in node.outputs))
    session = InferenceSession(ir.to_proto(observed).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [str(value.name) for value in observed.graph.outputs]
    largest = {name: _largest_value(array) for name, array in feeds.items()}
    for index in range(min(map(len, feeds.values()))):
        item = {name: array[index : index + 1] for name, array in feeds.items()}
        for name, array in zip(names, session.run(names, item), strict=True):
            largest[name] = max(largest.get(name, 0.0), _largest_value(array))
    return largest


def _largest_value(array: npt.NDArray[np.generic]) -> float:
    # Without an array of absolute values, which takes longer than both.
    return max(float(array.max()), -float(array.min())) if array.size else 0.0
