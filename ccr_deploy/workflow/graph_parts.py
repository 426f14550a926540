"""Weights, iterations and clipped activations of graphs, for the diagnosis of a verification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.graphs.weights import initializer_of, step_of
from ccr_deploy.models.family import iteration_of, signal_of
from ccr_deploy.quantization.clipping import ClippedShares, with_counts
from ccr_deploy.quantization.int8 import activation_scales
from ccr_deploy.quantization.quantizers import quantized_activations
from ccr_deploy.quantization.table import INT8_MAX
from ccr_deploy.verification.graph_faults import ClippedRange, GraphParts
from ccr_deploy.workflow.graphs import model_runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt
    import onnx_ir as ir

    from ccr_deploy.quantization.table import StageTable

_KINDS = {"Conv": ("weight", "bias"), "Gemm": ("weight", "bias"), "Sub": ("offset",), "Mul": ("scale",)}
"""The second and third inputs of operators that read weights."""
_NORMALISATION = "normalise"


def graph_parts(model: ir.Model) -> GraphParts:
    """Return the weights of a graph by layer, and its number of iterations.

    The names are the same in every precision and schedule. Weights are those of convolutions, linear layers
    and the normalisation; INT8 weights are dequantized.
    """
    found: dict[str, npt.NDArray[np.generic]] = {}
    steps: dict[str, npt.NDArray[np.floating]] = {}
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
            weight = initializer_of(value)
            if weight is None or weight.const_value is None or f"{layer}/{kind}" in found:
                continue
            array = weight.const_value.numpy()
            if (step := step_of(value)) is not None:
                array = array * step
                steps[f"{layer}/{kind}"] = step
            found[f"{layer}/{kind}"] = array
    return GraphParts(found, max(iterations, default=None), steps)


def clipped_activations(
    int8: ir.Model,
    fp32: ir.Model,
    table: StageTable | None,
    feeds: Mapping[str, npt.NDArray[np.uint8]],
) -> list[ClippedRange]:
    """Return how much of each activation an INT8 graph clips, measured with the FP32 graph.

    Args:
        int8: the INT8 graph.
        fp32: the FP32 graph of the same schedule.
        table: the calibration table's ranges of the stage; None if the bundle has none.
        feeds: the graph's input by name, ``uint8 [N, ...]``.
    """
    scales, signals = activation_scales(int8), quantized_activations(fp32)
    # A range ends half a step beyond its last value.
    limits = {name: scales[name] * (INT8_MAX + 0.5) for name in sorted(scales.keys() & signals.keys())}
    shares = ClippedShares(limits)
    with model_runner(with_counts(fp32, limits)) as runner:
        shares.add(runner.infer(feeds))
    known = set(table.magnitudes()) if table else set()
    return [
        ClippedRange(
            tensor=name,
            graph_range=scales[name] * INT8_MAX,
            table_range=table.scale_of(signals[name]) * INT8_MAX
            if table and signals[name] <= known
            else None,
            clipped_percent=percent,
        )
        for name, percent in shares.percent().items()
    ]
