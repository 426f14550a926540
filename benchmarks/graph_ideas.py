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
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import onnx_ir as ir
import onnxruntime

from benchmarks.ideas import IDEAS
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
from ccr_deploy.models.checkpoint import load_checkpoint, untrained_checkpoint
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

    from benchmarks.ideas import Idea
    from ccr_deploy.models.checkpoint import Checkpoint

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


if __name__ == "__main__":
    main()
