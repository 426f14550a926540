"""The layers, parameters and multiply-accumulates of a model, counted on tensors without data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from ccr_deploy.core.stages import DEFAULT_SCHEDULE, NAIVE_SCHEDULE
from ccr_deploy.export.unroll import UnrolledBaseline, unroll
from ccr_deploy.models.chain import BaselineChain, CcrChain
from ccr_deploy.models.family import parameter_prefix
from ccr_deploy.models.presets import default_preprocessing

if TYPE_CHECKING:
    from torch import nn

    from ccr_deploy.models.config import ModelConfig

OPERATIONS_PER_MAC = 2
"""FlopCounterMode counts a multiplication and an addition as two operations."""


@dataclass(frozen=True)
class LayerDescription:
    """One layer: its number of parameters, and of multiply-accumulates over all iterations."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class ModelDescription:
    """One model. Multiply-accumulates are for one image and all T iterations.

    `encoder_macs_plain` counts the work that does not depend on the iteration T times; `encoder_macs` counts
    it once. A baseline's decoder and ResNet-18 count as its classifier, and none of its work can be hoisted.
    `trained_iterations` lists each T that a checkpoint was trained with; None for a preset.
    """

    name: str
    image_height: int
    image_width: int
    iterations: int
    trained_iterations: tuple[int, ...] | None
    cut: str | None
    parameters: int
    encoder_parameters: int
    encoder_macs_plain: int
    encoder_macs: int
    classifier_macs: int
    code_bytes: int
    bits_per_pixel: float
    layers: tuple[LayerDescription, ...]


def describe_model(
    name: str, config: ModelConfig, trained_iterations: tuple[int, ...] | None = None
) -> ModelDescription:
    """Count the parameters and multiply-accumulates of a configuration.

    Args:
        name: the name in the description.
        config: the configuration.
        trained_iterations: each T that a checkpoint was trained with; None for a preset.
    """
    with torch.device("meta"):  # tensors with shapes but no data: nothing is allocated or computed
        image = 1, 3, config.image_height, config.image_width
        if config.is_baseline:
            baseline = BaselineChain(config, default_preprocessing(config)).eval()
            layers = _layers(baseline, _count_macs(UnrolledBaseline(baseline), *image))
            repeated = 0
        else:
            chain = CcrChain(config).eval()
            hoisted, plain = (
                _count_macs(unroll(chain.encoder, config.iterations, schedule), *image)
                for schedule in (DEFAULT_SCHEDULE, NAIVE_SCHEDULE)
            )
            layers = _layers(chain, hoisted + _count_macs(chain.classifier, 1, *config.code_shape))
            repeated = plain.total() - hoisted.total()
    in_encoder = [layer for layer in layers if layer.name.startswith(parameter_prefix("encoder"))]
    encoder_macs = sum(layer.macs for layer in in_encoder)
    return ModelDescription(
        name=name,
        image_height=config.image_height,
        image_width=config.image_width,
        iterations=config.iterations,
        trained_iterations=trained_iterations,
        cut=config.classifier.cut,
        parameters=sum(layer.parameters for layer in layers),
        encoder_parameters=sum(layer.parameters for layer in in_encoder),
        encoder_macs_plain=encoder_macs + repeated,
        encoder_macs=encoder_macs,
        classifier_macs=sum(layer.macs for layer in layers) - encoder_macs,
        code_bytes=config.code_bytes,
        bits_per_pixel=8 * config.code_bytes / (config.image_height * config.image_width),
        layers=layers,
    )


def _count_macs(network: nn.Module, *example: int) -> Counter[nn.Parameter]:
    """Count the multiply-accumulates for an input shape by weight, which unrolled copies of a layer share."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(example))
    operations = counter.get_flop_counts()
    macs: Counter[nn.Parameter] = Counter()
    for path, module in network.named_modules(prefix=type(network).__name__):
        weight = getattr(module, "weight", None)
        if weight is not None:
            macs[weight] += sum(operations.get(path, {}).values()) // OPERATIONS_PER_MAC
    return macs


def _layers(chain: nn.Module, macs: Counter[nn.Parameter]) -> tuple[LayerDescription, ...]:
    """Describe each module that has parameters itself, in order."""
    return tuple(
        LayerDescription(name, sum(map(torch.numel, parameters)), sum(macs[each] for each in parameters))
        for name, module in chain.named_modules()
        if (parameters := list(module.parameters(recurse=False)))
    )
