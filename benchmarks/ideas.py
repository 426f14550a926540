"""Ideas for better graphs of encoder and classifier, which `benchmarks.graph_ideas` measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common

from ccr_deploy.export.composition import compose_stem
from ccr_deploy.export.stage_graph import stage_graph
from ccr_deploy.export.to_onnx import to_onnx
from ccr_deploy.export.uint8_io import EncoderGraph
from ccr_deploy.export.unroll import IterationMajorEncoder, LayerMajorEncoder, UnrolledEncoder
from ccr_deploy.export.unrolled_cells import BatchedInputConv, UnrolledCell
from ccr_deploy.models.chain import CcrChain
from ccr_deploy.models.checkpoint import build_model
from ccr_deploy.models.family import is_uint8_io

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ccr_deploy.core.stages import ChainStage
    from ccr_deploy.models.checkpoint import Checkpoint
    from ccr_deploy.models.conv_lstm import ConvLstmCell


@dataclass(frozen=True)
class Idea:
    """An idea: a function that makes the FP32 graph from a checkpoint. `exported`: `export` uses it.

    `stays_in_fp32` returns whether a node, by its name, is in FP32 in the FP16 graph too.
    """

    stage: ChainStage
    title: str
    graph: Callable[[Checkpoint], ir.Model]
    exported: bool = False
    stays_in_fp32: Callable[[str], bool] = is_uint8_io


class EarlySums(LayerMajorEncoder):
    """Layer-major order that adds the convolutions before it splits the gates."""

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """Unroll a cell with one input convolution for all iterations."""
        unrolled = UnrolledCell(cell, self.iterations, shared_input_conv=True)
        unrolled.batched = BatchedInputConv(unrolled.input_conv)
        return unrolled


class OneBatchedCell(LayerMajorEncoder):
    """Layer-major order whose second cell has an input convolution for each iteration."""

    def unrolled_cell(self, cell: ConvLstmCell) -> UnrolledCell:
        """Unroll a cell; the second one has an input convolution for each iteration."""
        if self.cell_count == 2:
            return UnrolledCell(cell, self.iterations, shared_input_conv=False)
        return super().unrolled_cell(cell)

    def forward(self, image: Tensor) -> Tensor:
        """Return the activations ``[N, C, H/16, W/16]`` for normalised images ``[N, 3, H, W]``."""
        hidden_states = self.cell(1)([self.cell(1).input_conv(self.stem(image))] * self.iterations)
        hidden_states = self.cell(2)(hidden_states)
        for number in range(3, self.cell_count + 1):
            hidden_states = self.cell(number)(self.cell(number).batched(hidden_states))
        return self.binarizer(hidden_states[-1])


def encoder(kind: type[UnrolledEncoder], *, compose: bool) -> Callable[[Checkpoint], ir.Model]:
    """Return a function that makes an encoder's graph.

    Args:
        kind: the schedule.
        compose: whether the stem and the first input convolution are composed.
    """

    def graph(checkpoint: Checkpoint) -> ir.Model:
        unrolled = kind(_chain(checkpoint).encoder, checkpoint.config.iterations).eval()
        if compose:
            compose_stem(unrolled)
        config = checkpoint.config
        image = torch.zeros(2, config.image_height, config.image_width, 3, dtype=torch.uint8)
        return to_onnx(EncoderGraph(unrolled, checkpoint.preprocessing), image, "image", "code")

    return graph


def classifier(change: Callable[[ir.Model], None] = lambda _: None) -> Callable[[Checkpoint], ir.Model]:
    """Return a function that makes a classifier's graph, changed by `change` in place."""

    def graph(checkpoint: Checkpoint) -> ir.Model:
        model = stage_graph(_chain(checkpoint).classifier, checkpoint.config, checkpoint.preprocessing, None)
        change(model)
        return model

    return graph


def upsampling_convolutions(model: ir.Model) -> None:
    """Replace nearest-neighbour upsampling and the 3x3 convolution behind it by a transposed convolution.

    Of the 4x4 taps of its kernel, each is the sum of those of the convolution that read the same pixel.
    """
    for resize in [node for node in model.graph if node.op_type == "Resize"]:
        (conv,) = (use.node for use in resize.outputs[0].uses())
        weight = conv.inputs[1]
        assert weight is not None
        assert weight.const_value is not None
        taps = weight.const_value.numpy().astype(np.float64).swapaxes(0, 1)
        kernel = np.zeros((*taps.shape[:2], 4, 4))
        for row in range(4):
            for column in range(4):
                rows = [number for number in (2 - row, 3 - row) if 0 <= number < 3]
                columns = [number for number in (2 - column, 3 - column) if 0 <= number < 3]
                kernel[:, :, row, column] = taps[:, :, rows][:, :, :, columns].sum((2, 3))
        weight.const_value = ir.tensor(kernel.astype(np.float32), name=weight.name)
        weight.shape = ir.Shape(kernel.shape)
        transposed = ir.node(
            "ConvTranspose",
            [resize.inputs[0], *conv.inputs[1:]],
            {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]},
            name=conv.name,
        )
        (result,), (replaced,) = transposed.outputs, conv.outputs
        result.name, result.shape, result.type = replaced.name, replaced.shape, replaced.type
        model.graph.insert_before(conv, transposed)
        ir.convenience.replace_all_uses_with(replaced, result)
        model.graph.remove([conv, resize], safe=True)
    common.RemoveUnusedNodesPass()(model)


def is_cell_state_or_uint8_io(node: str) -> bool:
    """Return whether a node computes a cell state, or belongs to uint8 I/O."""
    return "/cell_state" in node or is_uint8_io(node)


def is_cast_or_packing(node: str) -> bool:
    """Return whether a node casts bytes or packs bits, but not whether it normalises or looks up bits."""
    return node.startswith("pack") or "/cast" in node


IDEAS = (
    Idea("encoder", "iteration-major, stem apart", encoder(IterationMajorEncoder, compose=False)),
    Idea("encoder", "iteration-major, stem composed", encoder(IterationMajorEncoder, compose=True), True),
    Idea("encoder", "layer-major, stem apart, early sums", encoder(EarlySums, compose=False)),
    Idea("encoder", "layer-major, stem composed, early sums", encoder(EarlySums, compose=True)),
    Idea("encoder", "layer-major, stem composed, late sums", encoder(LayerMajorEncoder, compose=True), True),
    Idea("encoder", "layer-major but for cell 2, stem composed", encoder(OneBatchedCell, compose=True)),
    Idea(
        "encoder",
        "layer-major as exported, cell state in FP32",
        encoder(LayerMajorEncoder, compose=True),
        stays_in_fp32=is_cell_state_or_uint8_io,
    ),
    Idea(
        "encoder",
        "layer-major as exported, normalisation in FP16",
        encoder(LayerMajorEncoder, compose=True),
        stays_in_fp32=is_cast_or_packing,
    ),
    Idea("classifier", "lookup and pooling", classifier(), True),
    Idea("classifier", "lookup of bits in FP16", classifier(), stays_in_fp32=is_cast_or_packing),
    Idea("classifier", "transposed convolutions for upsampling", classifier(upsampling_convolutions)),
)


def _chain(checkpoint: Checkpoint) -> CcrChain:
    chain = build_model(checkpoint)
    assert isinstance(chain, CcrChain)
    return chain
