"""Fake quantization of a chain in PyTorch, at the places and with the scales of a bundle's INT8 graphs.

Model Optimizer's quantizers round to 8 bits in the forward pass. The gradient passes straight through them,
but is zero for values beyond the range (Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.graphs.convolutions import is_quantized
from ccr_deploy.models.family import STEM, name_in_graphs, parameter_prefix, signal_of
from ccr_deploy.quantization.model_optimizer import quiet, torch_quantization
from ccr_deploy.quantization.quantizers import is_residual_addition
from ccr_deploy.quantization.table import INT8_MAX
from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
from ccr_deploy.workflow.graphs import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import ChainStage
    from ccr_deploy.models.chain import CcrChain

_ACTIVATIONS = {"num_bits": 8, "axis": None}
_WEIGHTS = {"num_bits": 8, "axis": 0}


@dataclass(frozen=True)
class QuantizedPlaces:
    """The activations of a chain that its INT8 graphs quantize, with their scales.

    Attributes:
        inputs: the scale of the input of each quantized convolution, by the path of its module.
        summands: the scale of the second summand of a residual addition, by the path of its block.
    """

    inputs: dict[str, float]
    summands: dict[str, float]


def quantized_places(bundle: Bundle, chain: CcrChain) -> QuantizedPlaces:
    """Return what the INT8 graphs of a calibrated bundle quantize, by the modules of its chain.

    Args:
        bundle: the calibrated bundle.
        chain: the chain that the bundle was exported from.

    Raises:
        WrongUsageError: if the bundle is not calibrated, or its INT8 graphs quantize the stem.
        BundleError: if a graph is damaged.
    """
    calibration = bundle.manifest.calibration
    if calibration is None:
        raise WrongUsageError(
            f"{bundle.path}: has no INT8 graphs: run ccr-deploy calibrate {bundle.path} --images DIR"
        )
    if STEM not in calibration.high_precision:
        # The graphs compute stem and first input convolution as one, whose weights no module has.
        raise WrongUsageError(
            f"{bundle.path}: its INT8 graphs quantize the layer {STEM}, which cannot be trained quantized: "
            f"calibrate it with --keep-high-precision {STEM}"
        )
    graphs = CalibratedGraphs(bundle)
    return places_of_graphs(
        chain,
        {
            stage: load_model(bundle, graphs.sibling(graphs.calibration_graph(stage), "int8"))
            for stage in CHAIN_STAGES
        },
    )


def places_of_graphs(chain: CcrChain, graphs: Mapping[ChainStage, ir.Model]) -> QuantizedPlaces:
    """Return what graphs with Q/DQ pairs quantize, by the modules of the chain that they compute."""
    places = QuantizedPlaces({}, {})
    for stage, model in graphs.items():
        paths = _paths(chain, stage)
        for node in model.graph:
            name = node.name or ""
            if node.op_type == "Conv" and is_quantized(node):
                places.inputs[paths[signal_of(name)]] = _scale_of(node.inputs[0])
            elif is_residual_addition(node) and (scale := _scale_of(node.inputs[1])):
                places.summands[paths[name.rpartition("/")[0]]] = scale
    return places


def fake_quantize(chain: CcrChain, places: QuantizedPlaces) -> None:
    """Insert quantizers into a chain, in place. The names of its parameters and buffers do not change.

    The scales of activations are fixed. Those of weights follow the weights in training: the largest absolute
    value of each output channel becomes 127, as in the INT8 graphs.

    Args:
        chain: the chain.
        places: what is quantized.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
    """
    library = torch_quantization()
    with quiet():
        library.quantize(chain, {"quant_cfg": list(_configuration(places)), "algorithm": None})
    for path, scale in places.inputs.items():
        chain.get_submodule(f"{path}.input_quantizer").amax = torch.tensor(INT8_MAX * scale)
    settings = library.config.QuantizerAttributeConfig(**_ACTIVATIONS)
    for path, scale in places.summands.items():
        _quantize_summand(
            chain.get_submodule(path), library.nn.TensorQuantizer(settings, amax=INT8_MAX * scale)
        )


def _configuration(places: QuantizedPlaces) -> Iterator[dict[str, Any]]:
    """Yield Model Optimizer's settings: no quantizers but those of the given convolutions."""
    yield {"quantizer_name": "*", "enable": False}
    for path in places.inputs:
        yield {"quantizer_name": f"{path}.weight_quantizer", "cfg": _WEIGHTS, "enable": True}
        yield {"quantizer_name": f"{path}.input_quantizer", "cfg": _ACTIVATIONS, "enable": True}


def _quantize_summand(block: nn.Module, quantizer: nn.Module) -> None:
    """Insert a quantizer into a residual block, behind what the block adds to its convolutions' output."""
    assert isinstance(block.downsample, nn.Sequential | None)
    block.downsample = nn.Sequential(*(block.downsample or ()), quantizer)


def _paths(chain: CcrChain, stage: ChainStage) -> dict[str, str]:
    """Return the paths of a stage's modules in the chain by their signals."""
    prefix = parameter_prefix(stage)
    return {
        name_in_graphs(path.removeprefix(prefix)): path
        for path, _ in chain.named_modules()
        if path.startswith(prefix)
    }


def _scale_of(value: ir.Value | None) -> float:
    """Return the scale of an activation behind a Q/DQ pair; 0 for others."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "DequantizeLinear":
            scale = producer.inputs[1]
            assert scale is not None
            assert scale.const_value is not None
            return float(scale.const_value.numpy())
        value = producer.inputs[0] if producer.op_type == "Cast" else None
    return 0.0
