"""Sensitivity: the cost of quantizing each layer alone, and the layers to keep in high precision."""

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
"""A layer is kept in high precision if its share of the sensitivity exceeds this many shares of the work."""

NEGLIGIBLE_BITS_PERCENT = 0.05
NEGLIGIBLE_ANSWERS_PERCENT = 1
"""Costs up to these do not justify a slower layer. One of 128 images is 0.8 %."""


class LayerSensitivity(Record, frozen=True):
    """The sensitivity of one layer: the cost of quantizing this layer and no other.

    `work_share` is its share of the multiply-accumulates of its stage, from 0 to 1. `flipped_percent` is the
    percentage of the code's bits that change; None for a classifier's layer. `changed_answers_percent` is the
    percentage of images for which the top-1 class of the whole chain changes.
    """

    stage: Stage
    layer: str
    work_share: float
    flipped_percent: float | None
    changed_answers_percent: float

    @property
    def cost_percent(self) -> float:
        """The percentage of flipped bits for a layer of an encoder, of changed classes for a classifier."""
        return self.changed_answers_percent if self.flipped_percent is None else self.flipped_percent

    @property
    def negligible_percent(self) -> float:
        """The cost up to which a layer stays quantized."""
        return NEGLIGIBLE_ANSWERS_PERCENT if self.flipped_percent is None else NEGLIGIBLE_BITS_PERCENT


def ranked(layers: Iterable[LayerSensitivity]) -> list[LayerSensitivity]:
    """Sort layers by decreasing sensitivity, the encoder's before the classifier's."""
    return sorted(layers, key=lambda layer: (layer.stage != "encoder", -layer.cost_percent))


def proposal(layers: Sequence[LayerSensitivity]) -> tuple[str, ...]:
    """Propose the layers to keep in high precision: those that are sensitive and do little of the work.

    Keeping a layer in high precision gives up a part of INT8's speed-up, about the layer's share of the work,
    and saves its share of the sensitivity. A layer is proposed if the ratio of the two shares, within its
    stage, exceeds `COST_OVER_WORK`.
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
    """Return each quantizable layer's share of the multiply-accumulates of all of them, from 0 to 1."""
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
