"""Which tensors an INT8 graph quantizes, and how they are called in every schedule.

A logical name says layer and iteration: ``cell1/t3/hidden_state``. Without the iteration it names the
*signal* (``cell1/hidden_state``), which all iterations quantize with one scale: layer-major batches the
iterations of an input convolution into one, so that no other choice fits every schedule. What this costs
was measured; see the README.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.graphs.convolutions import convolutions
from ccr_deploy.models.family import is_in_residual_stage, layer_of, signal_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx_ir as ir

MIN_CHANNELS = 16


def layers(model: ir.Model) -> list[str]:
    """The graph's layers, in its order."""
    return _layers_of(convolutions(model))


def quantizable_layers(model: ir.Model) -> list[str]:
    """The layers with a convolution that is quantized, in the graph's order."""
    return _layers_of(filter(is_quantizable, convolutions(model)))


def is_quantizable(conv: ir.Node) -> bool:
    """Whether TensorRT has INT8 kernels for a convolution, by Model Optimizer's rule for its channels.

    Both numbers of channels are at least 16; or one of them is, one is a multiple of 8, and the kernel is
    square.
    """
    weight = conv.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    channels = [size for size in weight.shape[:2] if isinstance(size, int)]
    if min(channels) >= MIN_CHANNELS:
        return True
    is_square = len(set(weight.shape[2:])) == 1
    return is_square and max(channels) >= MIN_CHANNELS and any(size % 8 == 0 for size in channels)


def quantized_activations(model: ir.Model) -> dict[str, set[str]]:
    """The activations that an INT8 graph quantizes, and the signals that each carries.

    These are the quantizable convolutions' inputs and, so that TensorRT fuses a residual addition with the
    convolution before it, the other summand. A concatenation carries the signals that it joins.
    """
    found: dict[str, set[str]] = {}
    for value in _quantized_values(model):
        found.setdefault(value.name or "", set()).update(_signals(value))
    return found


def is_residual_addition(node: ir.Node) -> bool:
    """Whether a node adds a residual block's input, its second summand, to what the block made of it."""
    return node.op_type == "Add" and is_in_residual_stage(node.name or "")


def _layers_of(nodes: Iterable[ir.Node]) -> list[str]:
    return list(dict.fromkeys(layer_of(node.name or "") for node in nodes))


def _quantized_values(model: ir.Model) -> Iterator[ir.Value]:
    for node in model.graph:
        if node.op_type == "Conv" and node.inputs[0] is not None and is_quantizable(node):
            yield node.inputs[0]
        elif is_residual_addition(node) and node.inputs[1] is not None:
            yield node.inputs[1]


def _signals(value: ir.Value) -> set[str]:
    producer = value.producer()
    if producer is not None and producer.op_type == "Concat":
        return {signal_of(joined.name or "") for joined in producer.inputs if joined is not None}
    return {signal_of(value.name or "")}
