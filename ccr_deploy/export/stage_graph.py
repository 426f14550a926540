"""The FP32 graph of one stage, from its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from ccr_deploy.export.composition import compose_stem
from ccr_deploy.export.to_onnx import to_onnx
from ccr_deploy.export.uint8_io import BaselineGraph, ClassifierGraph, EncoderGraph
from ccr_deploy.export.unroll import UnrolledBaseline, unroll
from ccr_deploy.models.chain import BaselineChain, build_network
from ccr_deploy.models.encoder import RecurrentEncoder
from ccr_deploy.models.family import parameter_prefix

if TYPE_CHECKING:
    import onnx_ir
    from torch import nn

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.core.stages import Schedule, Stage
    from ccr_deploy.models.config import ModelConfig


def stage_graph(
    network: nn.Module, config: ModelConfig, preprocessing: Preprocessing, schedule: Schedule | None
) -> onnx_ir.Model:
    """Export the network of a stage.

    Args:
        network: an encoder, a classifier or a baseline, in evaluation mode.
        config: the configuration of its model.
        preprocessing: the normalisation of its images.
        schedule: the unroll schedule of an encoder; None for other stages.
    """
    # Batch 2: torch's exporter treats a dimension of size 1 in an example as fixed.
    image = torch.zeros(2, config.image_height, config.image_width, 3, dtype=torch.uint8)
    if isinstance(network, RecurrentEncoder):
        assert schedule is not None
        unrolled = unroll(network, config.iterations, schedule)
        if unrolled.shares_repeated_work:
            compose_stem(unrolled)
        module = EncoderGraph(unrolled, preprocessing)
        return to_onnx(module, image, "image", "code", share_repeated_work=unrolled.shares_repeated_work)
    if isinstance(network, BaselineChain):
        return to_onnx(BaselineGraph(UnrolledBaseline(network), preprocessing), image, "image", "logits")
    code = torch.zeros(2, config.code_bytes, dtype=torch.uint8)
    return to_onnx(ClassifierGraph(network, config.code_shape), code, "code", "logits")


def graph_of_weights(bundle: Bundle, stage: Stage, schedule: Schedule | None) -> onnx_ir.Model:
    """Export a stage again from the weights of a bundle: what its FP32 graph should be.

    Args:
        bundle: the bundle.
        stage: the stage.
        schedule: the unroll schedule of an encoder; None for other stages.

    Raises:
        BundleError: if the file of the weights is damaged.
    """
    record, preprocessing = bundle.manifest.network(stage), bundle.manifest.contract.preprocessing
    prefix = parameter_prefix(stage)
    weights = load_file(bundle.file(record.weights))
    network = build_network(stage, record.model, preprocessing)
    network.load_state_dict(
        {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    )
    return stage_graph(network.eval(), record.model, preprocessing, schedule)
