"""What a model is made of and what it costs, counted on its layers; nothing is computed."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from ccr_deploy.export.unroll import UnrolledBaseline, unroll
from ccr_deploy.models.chain import BaselineChain, CcrChain
from ccr_deploy.models.presets import default_preprocessing

if TYPE_CHECKING:
    from torch import nn

    from ccr_deploy.core.stages import Schedule
    from ccr_deploy.models.config import ModelConfig

OPERATIONS_PER_MAC = 2
"""FlopCounterMode counts a multiply and an add as two."""


@dataclass(frozen=True)
class LayerDescription:
    """One layer: its parameters, and its multiply-accumulates over all iterations."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class ModelDescription:
    """One model. Multiply-accumulates are for one image and all T iterations.

    `encoder_macs_plain` repeats in every iteration what no iteration changes; `encoder_macs` does not.
    A baseline's decoder and ResNet-18 count as its classifier, and nothing of it can be hoisted.
    `trained_iterations` is every T that a checkpoint was trained with, None for a preset.
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
    """Count a configuration's parameters and multiply-accumulates.

    Args:
        name: what to call it.
        config: the configuration.
        trained_iterations: every T that a checkpoint was trained with, None for a preset.
    """
    with torch.device("meta"):
        if config.is_baseline:
            layers, encoder_macs = _baseline_layers(config)
            encoder_macs_plain = encoder_macs
        else:
            layers, encoder_macs, encoder_macs_plain = _ccr_layers(config)
    parameters = sum(layer.parameters for layer in layers)
    return ModelDescription(
        name=name,
        image_height=config.image_height,
        image_width=config.image_width,
        iterations=config.iterations,
        trained_iterations=trained_iterations,
        cut=config.classifier.cut,
        parameters=parameters,
        encoder_parameters=sum(layer.parameters for layer in layers if layer.name.startswith("encoder.")),
        encoder_macs_plain=encoder_macs_plain,
        encoder_macs=encoder_macs,
        classifier_macs=sum(layer.macs for layer in layers) - encoder_macs,
        code_bytes=config.code_bytes,
        bits_per_pixel=8 * config.code_bytes / (config.image_height * config.image_width),
        layers=layers,
    )


def _ccr_layers(config: ModelConfig) -> tuple[tuple[LayerDescription, ...], int, int]:
    chain = CcrChain(config).eval()
    image = torch.zeros(1, 3, config.image_height, config.image_width)

    def encoder_macs(schedule: Schedule) -> dict[str, int]:
        return _macs_by_layer(unroll(chain.encoder, config.iterations, schedule), image)

    hoisted = encoder_macs("iteration-major")
    macs = {
        **{f"encoder.{name}": count for name, count in hoisted.items()},
        **{
            f"classifier.{name}": count
            for name, count in _macs_by_layer(chain.classifier, torch.zeros(1, *config.code_shape)).items()
        },
    }
    return _layers(chain, macs), sum(hoisted.values()), sum(encoder_macs("plain").values())


def _baseline_layers(config: ModelConfig) -> tuple[tuple[LayerDescription, ...], int]:
    chain = BaselineChain(config, default_preprocessing(config)).eval()
    image = torch.zeros(1, 3, config.image_height, config.image_width)
    macs = _macs_by_layer(UnrolledBaseline(chain), image)
    macs = {re.sub(r"^(stem|binarizer)", r"encoder.\1", name): count for name, count in macs.items()}
    macs = {re.sub(r"^output", "decoder.output", name): count for name, count in macs.items()}
    return _layers(chain, macs), sum(count for name, count in macs.items() if name.startswith("encoder."))


def _macs_by_layer(module: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Multiply-accumulates by layer; ``cell2.t3.input_conv`` counts as ``cell2.input_conv``."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(example)
    root = type(module).__name__
    macs: dict[str, int] = defaultdict(int)
    leaves = {name for name, child in module.named_modules() if not list(child.children())}
    for path, operations in counter.get_flop_counts().items():
        name = path.removeprefix(f"{root}.")
        if name in leaves:
            macs[re.sub(r"\.t\d+", "", name)] += sum(operations.values()) // OPERATIONS_PER_MAC
    return dict(macs)


def _layers(chain: nn.Module, macs: dict[str, int]) -> tuple[LayerDescription, ...]:
    """Every module that owns parameters, in order, with its multiply-accumulates."""
    layers = []
    for name, module in chain.named_modules():
        parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if parameters:
            layers.append(LayerDescription(name, parameters, macs.get(_unrolled_name(name), 0)))
    return tuple(layers)


def _unrolled_name(name: str) -> str:
    """``encoder.cells.1.input_conv`` is ``encoder.cell2.input_conv`` in the unrolled networks."""
    name = re.sub(r"\.cells\.(\d+)", lambda match: f".cell{int(match[1]) + 1}", name)
    return name.replace("encoder.binarizer.conv", "encoder.binarizer")
