"""Measure ideas for better graphs: kernels and bytes in TensorRT-RTX, CPU time, and flipped bits.

``python -m benchmarks.graph_ideas build/demo`` (after ``make demo``) writes ``results/graph-ideas.json``. No
GPU is needed. Kernels and bytes are those of the untrained ``ccr-layer1`` (224x224, T=8) in FP16; each batch
is compiled for itself. The CPU time is that of ONNX Runtime in FP32 with one thread at batch 1, without the
time that it waits, so that other work on the machine disturbs it little. Flips are those of the demo in
FP16, compared with FP32, on its test crops.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from onnx_ir.passes import common

from benchmarks.scaffold import MODEL, interleaved, machine_words, publish, rounds_option, temporary_folder
from ccr_deploy.backends.kernels import Totals
from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.tensorrt.builder import build
from ccr_deploy.backends.tensorrt.messages import BuildRequest
from ccr_deploy.backends.tensorrt.options import RtxOptions
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.metrics import flipped_bits
from ccr_deploy.core.records import Record
from ccr_deploy.core.stages import ChainStage
from ccr_deploy.export.composition import compose_stem
from ccr_deploy.export.stage_graph import stage_graph
from ccr_deploy.export.to_onnx import to_onnx
from ccr_deploy.export.uint8_io import EncoderGraph
from ccr_deploy.export.unroll import (
    BatchedInputConv,
    IterationMajorEncoder,
    LayerMajorEncoder,
    UnrolledCell,
    UnrolledEncoder,
)
from ccr_deploy.models.chain import CcrChain
from ccr_deploy.models.checkpoint import build_model, load_checkpoint, untrained_checkpoint
from ccr_deploy.models.family import is_uint8_io
from ccr_deploy.models.presets import preset
from ccr_deploy.quantization.emulation import emulate
from ccr_deploy.quantization.fp16 import cast
from ccr_deploy.reporting.kernel_tables import COUNTING
from ccr_deploy.reporting.table import Table
from ccr_deploy.workflow.graphs import model_runner
from ccr_deploy.workflow.images import image_set

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from torch import Tensor

    from ccr_deploy.models.checkpoint import Checkpoint
    from ccr_deploy.models.conv_lstm import ConvLstmCell

BATCHES = (1, 8, 32)
CAPABILITY = "8.9"
RUNS = 8
"""The number of runs in a process, of which the fastest counts."""


class Profile(Record, frozen=True):
    """The kernels of one batch: their number, and their bytes and work per image.

    A batch of None is a dynamic one, whose bytes are not known.
    """

    batch: int | None
    kernels: int
    per_image: Totals | None


class MeasuredIdea(Record, frozen=True):
    """One idea for a graph. `cpu_ratio` is its CPU time over that of the first idea of the stage.

    `flipped_bits` is None for a classifier.
    """

    stage: ChainStage
    idea: str
    exported: bool
    profiles: tuple[Profile, ...]
    cpu_ratio: float
    flipped_bits: int | None


class GraphIdeas(Record, frozen=True):
    """All ideas, measured on one machine. `bits` is the number of bits that flips were counted in."""

    schema_version: int
    model: str
    device: str
    rounds: int
    bits: int
    machine: MachineState
    ideas: tuple[MeasuredIdea, ...]


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


@click.command()
@click.argument("demo", type=click.Path(path_type=Path, exists=True))
@click.option("--time", "only_time", is_flag=True, help="Print the CPU seconds of a graph: DEMO is its file.")
@rounds_option(5, "Number of rounds; each round times every graph once, in a process of its own.")
def main(demo: Path, only_time: bool, rounds: int) -> None:
    """Measure every idea; flips on the demo in the folder DEMO. Write the result beside this script."""
    if only_time:
        click.echo(str(_cpu_seconds(demo)))
        return
    paper, trained = untrained_checkpoint(preset(MODEL)), load_checkpoint(demo / "checkpoint.pt")
    images = np.concatenate(list(image_set(Bundle.open(demo / "bundle"), demo / "images").batches))
    with temporary_folder() as folder:
        files = {idea: folder / f"{number}.onnx" for number, idea in enumerate(IDEAS)}
        for idea, file in files.items():
            ir.save(idea.graph(paper), file)
        profiles = {idea: _profiles(idea, file, folder) for idea, file in files.items()}
        flips = {idea: _flips(idea, trained, images) if idea.stage == "encoder" else None for idea in IDEAS}
        seconds = interleaved(
            "CPU time", {file.name: _timed_in_a_process(file) for file in files.values()}, rounds
        )
    first = {idea.stage: files[idea].name for idea in reversed(IDEAS)}
    result = GraphIdeas(
        schema_version=1,
        model=f"{MODEL}, untrained, 224x224, T=8, FP16",
        device=f"compute capability {CAPABILITY}",
        rounds=rounds,
        bits=8 * len(images) * trained.config.code_bytes,
        machine=machine_state(),
        ideas=tuple(
            MeasuredIdea(
                stage=idea.stage,
                idea=idea.title,
                exported=idea.exported,
                profiles=profiles[idea],
                cpu_ratio=round(
                    float(np.median(np.divide(seconds[files[idea].name], seconds[first[idea.stage]]))), 3
                ),
                flipped_bits=flips[idea],
            )
            for idea in IDEAS
        ),
    )
    publish("graph-ideas", result, ideas_table(result))


def ideas_table(result: GraphIdeas) -> Table:
    """Return the table, one row per idea."""
    return Table(
        title="Ideas for graphs",
        columns=(
            "graph",
            "kernels",
            *(f"MB at batch {batch}" for batch in BATCHES),
            "kernels, dynamic batch",
            "CPU time",
            "bits flipped",
        ),
        rows=tuple(
            (
                f"{idea.stage}: {idea.idea}{' (exported)' if idea.exported else ''}",
                " / ".join(dict.fromkeys(str(profile.kernels) for profile in idea.profiles if profile.batch)),
                *(_traffic(profile.per_image) for profile in idea.profiles if profile.batch),
                *(str(profile.kernels) for profile in idea.profiles if not profile.batch),
                f"{idea.cpu_ratio:.2f}",
                "" if idea.flipped_bits is None else str(idea.flipped_bits),
            )
            for idea in result.ideas
        ),
        note=f"{result.model}, compiled by TensorRT-RTX for {result.device}; MB: activations + weights per "
        f"image; {COUNTING}; CPU time: ONNX Runtime in FP32, one thread, batch 1, relative to the stage's "
        f"first row, {result.rounds} rounds, on {machine_words(result.machine)}; flips: the demo in FP16, of "
        f"{result.bits} bits",
    )


def _traffic(totals: Totals | None) -> str:
    if totals is None:
        return "not known"
    return f"{totals.activation_bytes / 1e6:.1f} + {totals.weight_bytes / 1e6:.1f}"


def _profiles(idea: Idea, fp32: Path, folder: Path) -> tuple[Profile, ...]:
    """Compile a graph in FP16 for every batch, and for a dynamic one."""
    model = ir.load(fp32)
    shape = model.graph.inputs[0].shape
    assert shape is not None
    graph = folder / "fp16.onnx"
    ir.save(_in_fp16(model, idea), graph)

    def compiled(batch: Batch) -> list[Profile]:
        request = BuildRequest(
            graph=graph,
            engine=folder / "engine.plan",
            options=RtxOptions(compute_capabilities=(CAPABILITY,)),
            precision="fp16",
            batch=batch,
            input_shapes={
                str(model.graph.inputs[0].name): tuple(size for size in shape[1:] if isinstance(size, int))
            },
            timing_cache=None,
            can_run=False,
        )
        return [
            Profile(batch=listing.batch, kernels=listing.kernel_count, per_image=listing.per_image)
            for listing in build(request, lambda _: None).kernels
        ]

    return (*compiled(Batch(BATCHES)), *compiled(Batch(BATCHES[-1:], dynamic=True)))


def _in_fp16(model: ir.Model, idea: Idea) -> ir.Model:
    names = [node.name or "" for node in model.graph]
    return cast(model, [name for name in names if idea.stays_in_fp32(name)])


def _flips(idea: Idea, trained: Checkpoint, images: npt.NDArray[np.uint8]) -> int:
    """Return the number of bits that FP16 flips."""
    model = idea.graph(trained)
    codes = []
    for graph in (model, emulate(_in_fp16(model, idea), "fp16")):
        with model_runner(graph) as runner:
            codes.append(runner.infer({"image": images})["code"].astype(np.uint8))
    return int(flipped_bits(*codes).sum())


def _timed_in_a_process(graph: Path) -> Callable[[], float]:
    command = [sys.executable, "-m", "benchmarks.graph_ideas", str(graph), "--time"]
    return lambda: float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _cpu_seconds(graph: Path) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (spec,) = session.get_inputs()
    feed = {spec.name: np.random.default_rng(0).integers(0, 256, (1, *spec.shape[1:]), dtype=np.uint8)}
    seconds = []
    for _ in range(RUNS):
        started = time.process_time()
        session.run(None, feed)
        seconds.append(time.process_time() - started)
    return min(seconds)


def _chain(checkpoint: Checkpoint) -> CcrChain:
    chain = build_model(checkpoint)
    assert isinstance(chain, CcrChain)
    return chain


if __name__ == "__main__":
    main()
