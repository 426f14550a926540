"""What quantizing each layer alone costs, and which layers are better left in high precision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ccr_deploy.core.records import Record
from ccr_deploy.core.stages import Stage
from ccr_deploy.graphs.convolutions import convolutions
from ccr_deploy.models.family import layer_of
from ccr_deploy.quantization.quantizers import is_quantizable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx_ir as ir


COST_OVER_WORK = 5
"""A layer stays in high precision if its share of the sensitivity is this many times that of the work."""

NEGLIGIBLE_BITS_PERCENT = 0.05
NEGLIGIBLE_ANSWERS_PERCENT = 1
"""Costs up to these are not worth a layer's speed; of 128 images one answer is 0.8 %."""


class LayerSensitivity(Record, frozen=True):
    """What it costs to quantize one layer and nothing else.

    `work_share` is its part of its stage's multiply-accumulates. An encoder's layer flips bits; a
    classifier's has none to flip. `changed_answers_percent` is of the whole chain.
    """

    stage: Stage
    layer: str
    work_share: float
    flipped_percent: float | None
    changed_answers_percent: float

    @property
    def cost_percent(self) -> float:
        """Flipped bits for an encoder's layer, changed answers for a classifier's."""
        return self.changed_answers_percent if self.flipped_percent is None else self.flipped_percent

    @property
    def negligible_percent(self) -> float:
        """Return the cost below which a layer stays quantized."""
        return NEGLIGIBLE_ANSWERS_PERCENT if self.flipped_percent is None else NEGLIGIBLE_BITS_PERCENT


def ranked(layers: Iterable[LayerSensitivity]) -> list[LayerSensitivity]:
    """Return the layers by falling sensitivity, the encoder's before the classifier's."""
    return sorted(layers, key=lambda layer: (layer.stage != "encoder", -layer.cost_percent))


def proposal(layers: Sequence[LayerSensitivity]) -> tuple[str, ...]:
    """The layers to leave in high precision: those that are sensitive and do little of the work.

    Leaving out a layer of `work_share` w costs about that much of INT8's speed-up, and saves its share of
    the sensitivity; within each stage a layer is named if its sensitivity over work exceeds `COST_OVER_WORK`.
    """
    named: list[str] = []
    for stage in dict.fromkeys(layer.stage for layer in layers):
        members = [layer for layer in layers if layer.stage == stage]
        total = sum(layer.cost_percent for layer in members)
        named.extend(
            layer.layer
            for layer in members
            if layer.cost_percent > layer.negligible_percent
            and layer.cost_percent / total > COST_OVER_WORK * layer.work_share
        )
    return tuple(named)


def work_shares(model: ir.Model) -> dict[str, float]:
    """Each quantizable layer's part of what all of them multiply and accumulate for one image."""
    work: dict[str, float] = {}
    for node in filter(is_quantizable, convolutions(model)):
        layer = layer_of(node.name or "")
        work[layer] = work.get(layer, 0) + _multiply_accumulates(node)
    total = sum(work.values())
    return {layer: macs / total for layer, macs in work.items()}


def _multiply_accumulates(node: ir.Node) -> int:
    weight, output = node.inputs[1], node.outputs[0]
    assert weight is not None
    assert weight.shape is not None
    assert output.shape is not None
    rows_columns = [size for size in output.shape[2:] if isinstance(size, int)]
    return math.prod(size for size in weight.shape if isinstance(size, int)) * math.prod(rows_columns)
