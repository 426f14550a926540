"""The tensors that an INT8 graph quantizes, and their names in every schedule.

A logical name contains layer and iteration: ``cell1/t3/hidden_state``. Without the iteration it names the
*signal*, ``cell1/hidden_state``, which has one scale for all iterations. A scale per iteration would not fit
the layer-major schedule, in which one input convolution processes all iterations as one batch. The README has
measurements of the cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.graphs.convolutions import convolutions
from ccr_deploy.models.family import STEM, is_in_residual_stage, layer_of, signal_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import onnx_ir as ir

MIN_CHANNELS = 16
"""The number of channels from which Model Optimizer quantizes every convolution; see `is_quantizable`."""


def layers(model: ir.Model) -> list[str]:
    """Return the layers of a graph, in its order."""
    return _layers_of(convolutions(model))


def quantizable_layers(model: ir.Model) -> list[str]:
    """Return the layers with a quantizable convolution, in the graph's order."""
    return _layers_of(filter(is_quantizable, convolutions(model)))


def is_quantizable(conv: ir.Node) -> bool:
    """Return whether TensorRT has INT8 kernels for a convolution, by Model Optimizer's rule.

    Both numbers of channels are at least 16; or one of them is, one is a multiple of 8, and the kernel is
    square. The convolution that reads the stem's output is an exception: only the plain schedule has this
    tensor, so that no calibration table has its range.
    """
    if conv.inputs[0] is not None and signal_of(conv.inputs[0].name or "") == STEM:
        return False
    weight = conv.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    channels = [size for size in weight.shape[:2] if isinstance(size, int)]
    if min(channels) >= MIN_CHANNELS:
        return True
    is_square = len(set(weight.shape[2:])) == 1
    return is_square and max(channels) >= MIN_CHANNELS and any(size % 8 == 0 for size in channels)


def quantized_activations(model: ir.Model, high_precision: Collection[str] = ()) -> dict[str, set[str]]:
    """Return the activations that an INT8 graph quantizes, each with its signals.

    These are the inputs of quantizable convolutions, and the second summand of residual additions: TensorRT
    fuses an addition with the convolution before it only if the other summand is quantized. A concatenation
    has the signals of all its inputs.

    Args:
        model: the graph.
        high_precision: layers that are not quantized.
    """
    found: dict[str, set[str]] = {}
    for value in _quantized_values(model, high_precision):
        found.setdefault(value.name or "", set()).update(_signals(value))
    return found


def is_residual_addition(node: ir.Node) -> bool:
    """Return whether a node adds the input of a residual block, as second summand, to the block's output."""
    return node.op_type == "Add" and is_in_residual_stage(node.name or "")


def _layers_of(nodes: Iterable[ir.Node]) -> list[str]:
    return list(dict.fromkeys(layer_of(node.name or "") for node in nodes))


def _quantized_values(model: ir.Model, high_precision: Collection[str]) -> Iterator[ir.Value]:
    for node in model.graph:
        if layer_of(node.name or "") in high_precision:
            continue
        if node.op_type == "Conv" and node.inputs[0] is not None and is_quantizable(node):
            yield node.inputs[0]
        elif is_residual_addition(node) and node.inputs[1] is not None:
            yield node.inputs[1]


def _signals(value: ir.Value) -> set[str]:
    producer = value.producer()
    if producer is not None and producer.op_type == "Concat":
        return {signal_of(joined.name or "") for joined in producer.inputs if joined is not None}
    return {signal_of(value.name or "")}
