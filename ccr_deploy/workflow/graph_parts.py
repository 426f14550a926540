"""Weights, iterations and clipped activations of graphs, for the diagnosis of a verification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.models.family import iteration_of, signal_of
from ccr_deploy.quantization.int8 import activation_scales
from ccr_deploy.quantization.quantizers import quantized_activations
from ccr_deploy.quantization.table import INT8_MAX
from ccr_deploy.verification.graph_faults import GraphParts, TensorClipping
from ccr_deploy.workflow.graphs import model_runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnx_ir as ir

    from ccr_deploy.quantization.table import StageTable

_KINDS = {"Conv": ("weight", "bias"), "Gemm": ("weight", "bias"), "Sub": ("offset",), "Mul": ("scale",)}
"""The second and third inputs of operators that read weights."""
_NORMALISATION = "normalise"
_PASSED_ON = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "Identity", "Transpose"})
"""Operators between a weight as it is stored and its reader."""


def graph_parts(model: ir.Model) -> GraphParts:
    """Return the weights of a graph by layer, and its number of iterations.

    The names are the same in every precision and schedule. Weights are those of convolutions, linear layers
    and the normalisation; those of an INT8 graph are as they are before its quantizers.
    """
    found: dict[str, npt.NDArray[np.generic]] = {}
    iterations: set[int] = set()
    for node in model.graph:
        name = node.name or ""
        if iteration := iteration_of(name):
            iterations.add(iteration)
        layer = signal_of(name)
        if node.op_type in {"Sub", "Mul"}:
            if not name.startswith(_NORMALISATION):
                continue
            layer = _NORMALISATION
        for kind, value in zip(_KINDS.get(node.op_type, ()), node.inputs[1:], strict=False):
            array = _constant(value)
            if array is not None:
                found.setdefault(f"{layer}/{kind}", array)
    return GraphParts(found, max(iterations, default=None))


def clipped_activations(
    int8: ir.Model,
    fp32: ir.Model,
    table: StageTable | None,
    feeds: Mapping[str, npt.NDArray[np.uint8]],
) -> list[TensorClipping]:
    """Return how much of each activation an INT8 graph clips, measured with the FP32 graph.

    Args:
        int8: the INT8 graph.
        fp32: the FP32 graph of the same schedule.
        table: the calibration table's ranges of the stage; None if the bundle has none.
        feeds: the graph's input by name, ``uint8 [N, ...]``.
    """
    scales, signals = activation_scales(int8), quantized_activations(fp32)
    with model_runner(_with_outputs(fp32, sorted(scales.keys() & signals.keys()))) as runner:
        values = runner.infer(feeds)
    known = set(table.magnitudes()) if table else set()
    return [
        TensorClipping(
            tensor=name,
            graph_range=scales[name] * INT8_MAX,
            table_range=table.scale_of(signals[name]) * INT8_MAX
            if table and signals[name] <= known
            else None,
            # A range ends half a step beyond its last value.
            clipped_percent=100 * float((np.abs(array) > scales[name] * (INT8_MAX + 0.5)).mean()),
        )
        for name, array in values.items()
        if name in scales
    ]


def _with_outputs(model: ir.Model, names: list[str]) -> ir.Model:
    """Return a copy of a graph that also returns inner tensors."""
    import onnx_ir

    result = onnx_ir.from_proto(onnx_ir.to_proto(model))
    tensors = {value.name: value for node in result.graph for value in node.outputs}
    result.graph.outputs.extend(tensors[name] for name in names)
    return result


def _constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    while value is not None and (producer := value.producer()) is not None and producer.op_type in _PASSED_ON:
        value = producer.inputs[0]
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()
