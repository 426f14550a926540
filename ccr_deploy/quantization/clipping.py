"""The share of activations that INT8 clips: whether a calibration still fits the images of production.

An activation is clipped if its absolute value is above 127.5 scales, because it would be rounded to a larger
number than 127, the largest quantized value. The counts are computed inside the FP32
graph, so that memory does not depend on the size of the activations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ccr_deploy.core.records import Record
from ccr_deploy.core.stages import ChainStage
from ccr_deploy.quantization.quantizers import quantized_activations
from ccr_deploy.quantization.table import INT8_MAX

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt

    from ccr_deploy.quantization.table import StageTable, TensorRange

LIMIT_RATIO = 10
"""The clipped share at which a range no longer fits, in multiples of the calibration images' share."""
LEAST_LIMIT_PERCENT = 0.1
"""The lowest limit, in percent. How it was measured is described in docs/how-to/calibrate.md."""

_INSIDE, _VALUES = "/inside", "/values"


class TensorClipping(Record, frozen=True):
    """The clipped share of one tensor's activations, on checked and on calibration images.

    `calibration_clipped_percent` is what the calibration table records; for a table without that record, what
    the method of the range implies, and None if it implies nothing.
    """

    stage: ChainStage
    tensor: str
    clipped_percent: float
    calibration_clipped_percent: float | None
    limit_percent: float

    @property
    def is_over(self) -> bool:
        """Whether the share is over the limit."""
        return self.clipped_percent > self.limit_percent


class ClippingReport(Record, frozen=True):
    """All tensors that the INT8 graphs quantize, those that are the furthest over their limit first."""

    images: str
    image_count: int
    calibration_image_count: int
    tensors: tuple[TensorClipping, ...]

    @property
    def over(self) -> tuple[TensorClipping, ...]:
        """The tensors over their limit."""
        return tuple(entry for entry in self.tensors if entry.is_over)


def clipping_limits(
    model: ir.Model, table: StageTable, high_precision: Collection[str] = ()
) -> dict[str, float]:
    """Return the largest absolute value that is not clipped, for each tensor that is quantized.

    Args:
        model: the FP32 graph.
        table: the ranges of the stage's activations.
        high_precision: the layers that are not quantized.
    """
    quantized = quantized_activations(model, high_precision)
    return {name: (INT8_MAX + 0.5) * table.scale_of(signals) for name, signals in quantized.items()}


def with_counts(model: ir.Model, limits: Mapping[str, float]) -> ir.Model:
    """Return a copy of a graph with two more outputs for each tensor: its values, and those within a limit.

    Args:
        model: the FP32 graph.
        limits: the largest absolute value that is not clipped, by tensor.
    """
    counted = ir.from_proto(ir.to_proto(model))
    graph = counted.graph
    values = {value.name: value for node in graph for value in node.outputs}
    values |= {value.name: value for value in graph.inputs}
    for name, limit in limits.items():
        bound = ir.tensor(np.array(limit, np.float32), name=f"{name}/limit")
        constant = ir.node("Constant", [], attributes={"value": bound})
        absolute = ir.node("Abs", [values[name]])
        # NaN is not within a limit, so that it counts as clipped.
        inside = ir.node("LessOrEqual", [absolute.outputs[0], constant.outputs[0]])
        number = ir.node("Cast", [inside.outputs[0]], attributes={"to": ir.DataType.INT64})
        total = ir.node("ReduceSum", [number.outputs[0]], attributes={"keepdims": 0})
        size = ir.node("Size", [values[name]])
        graph.extend([constant, absolute, inside, number, total, size])
        for node, suffix in ((total, _INSIDE), (size, _VALUES)):
            (output,) = node.outputs
            output.name, output.dtype, output.shape = f"{name}{suffix}", ir.DataType.INT64, ir.Shape([])
            graph.outputs.append(output)
    return counted


class ClippedShares:
    """Sums of the counts that a graph of `with_counts` returns, over batches."""

    def __init__(self, names: Collection[str]) -> None:
        self._inside = dict.fromkeys(names, 0)
        self._values = dict.fromkeys(names, 0)

    def add(self, outputs: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Add the outputs for one batch."""
        for name in self._inside:
            self._inside[name] += int(outputs[f"{name}{_INSIDE}"])
            self._values[name] += int(outputs[f"{name}{_VALUES}"])

    def percent(self) -> dict[str, float]:
        """Return the clipped share of each tensor in percent."""
        return {
            name: 100 * (1 - inside / self._values[name]) if self._values[name] else 0.0
            for name, inside in self._inside.items()
        }


def compare_with_calibration(
    stage: ChainStage, found: Mapping[str, float], table: StageTable
) -> list[TensorClipping]:
    """Compare clipped shares with those of the calibration images.

    Args:
        stage: the stage.
        found: the clipped share on the checked images by tensor, in percent.
        table: the ranges of the stage's activations.
    """
    return [
        TensorClipping(stage, name, percent, own, max(LIMIT_RATIO * (own or 0), LEAST_LIMIT_PERCENT))
        for name, percent in found.items()
        for own in (_on_calibration_images(table.tensors[name]),)
    ]


def worst_first(tensors: Collection[TensorClipping]) -> tuple[TensorClipping, ...]:
    """Return tensors by their clipped share in multiples of the limit, the largest first."""
    return tuple(sorted(tensors, key=lambda entry: -entry.clipped_percent / entry.limit_percent))


def _on_calibration_images(entry: TensorRange) -> float | None:
    """Return the recorded clipped share in percent, or at most what the method excludes."""
    if entry.clipped_percent is not None:
        return entry.clipped_percent
    method, _, percentile = entry.method.partition(" ")
    if method == "minmax":
        return 0.0
    return round(100 - float(percentile), 6) if method == "percentile" else None
