"""Compare forms of the INT8 graphs by the kernels that TensorRT-RTX compiles, by bytes and by CPU time.

``python -m benchmarks.int8_graphs`` exports untrained weights of ``ccr-layer1`` at 224x224, T=8, and
calibrates. It measures

- how weights are stored: as INT8 behind a DequantizeLinear, or in FP16 behind a Q/DQ pair;
- other placements of the Q/DQ pairs (`benchmarks.placements`);
- how 7-bit weights are made, by flipped bits; with ``--trained DIR`` also of a trained bundle, on images of
  its demo.

CPU times are those of the process, in rounds that run every candidate once, so that other load on the machine
matters little. No GPU is needed. The result is written to ``benchmarks/results/int8-graphs.json``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import onnx_ir as ir

from benchmarks.int8_graph_results import (
    BATCHES,
    BatchKernels,
    Int8Graphs,
    PlacementKernels,
    SevenBits,
    StoredWeights,
    bits_table,
    placements_table,
    weights_table,
)
from benchmarks.placements import constant, placements, with_quantized_weights
from benchmarks.scaffold import (
    MODEL,
    calibrated_bundle,
    cpu_time_ratio,
    publish,
    random_feeds,
    temporary_folder,
    untrained_model,
)
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeBackend
from ccr_deploy.backends.onnxruntime.int8 import read_rounding_graph
from ccr_deploy.backends.openvino.cpu import OpenVinoRunner, change_before_compilation, import_openvino
from ccr_deploy.backends.openvino.int8 import halved_integers
from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.tensorrt.builder import build
from ccr_deploy.backends.tensorrt.messages import BuildRequest
from ccr_deploy.backends.tensorrt.options import RtxOptions
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.metrics import flipped_bits
from ccr_deploy.errors import EngineError
from ccr_deploy.graphs.convolutions import convolutions
from ccr_deploy.graphs.weights import initializer_of, step_of
from ccr_deploy.quantization.emulation import emulate
from ccr_deploy.workflow.graphs import load_model, model_runner
from ccr_deploy.workflow.images import few_images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.core.stages import ChainStage, Schedule

    Change = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, float]]

CAPABILITY = "8.9"
ROUNDS = 40
IMAGES = 256
GRAPHS: tuple[tuple[ChainStage, Schedule | None], ...] = (
    ("encoder", "iteration-major"),
    ("encoder", "layer-major"),
    ("classifier", None),
)


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option(
    "--trained", type=click.Path(path_type=Path), help="Folder of `make demo`, with bundle and images."
)
def main(bundle: Path | None, trained: Path | None) -> None:
    """Measure, with an untrained bundle that is exported first, or with BUNDLE."""
    with temporary_folder() as folder:
        schedules: tuple[Schedule, ...] = ("iteration-major", "layer-major")
        measured = (
            Bundle.open(bundle)
            if bundle
            else calibrated_bundle(MODEL, folder, samples=128, schedules=schedules)
        )
        images = measured.path.parent / "images"
        bits = list(_seven_bits(untrained_model(MODEL, measured), measured, images, 32))
        if trained:
            bits += _seven_bits(
                "the demo, trained", Bundle.open(trained / "bundle"), trained / "images", IMAGES
            )
        result = Int8Graphs(
            schema_version=1,
            model=untrained_model(MODEL, measured),
            capability=CAPABILITY,
            rounds=ROUNDS,
            machine=machine_state(),
            weights=tuple(_stored_weights(measured, stage, schedule, folder) for stage, schedule in GRAPHS),
            placements=tuple(
                found
                for stage, schedule in GRAPHS
                for found in _placements(measured, stage, schedule, folder)
            ),
            seven_bits=tuple(bits),
        )
    publish("int8-graphs", result, weights_table(result), placements_table(result), bits_table(result))


def _stored_weights(
    bundle: Bundle, stage: ChainStage, schedule: Schedule | None, folder: Path
) -> StoredWeights:
    model = load_model(bundle, bundle.graph(stage, "int8", schedule))
    files = _save(folder, {"fp16": with_quantized_weights(model), "int8": model})
    built = {name: _build(file, bundle, stage) for name, file in files.items()}
    ratio, equal = {}, {}
    for library, load in _LIBRARIES.items():
        ratio[library], equal[library] = _compare(load, files, bundle, stage)
    return StoredWeights(
        graph=_graph_name(stage, schedule),
        fp16_bytes=files["fp16"].stat().st_size,
        int8_bytes=files["int8"].stat().st_size,
        fp16_build_seconds=built["fp16"][1],
        int8_build_seconds=built["int8"][1],
        equal_kernels=built["fp16"][0] == built["int8"][0],
        cpu_ratio=ratio,
        equal_results=equal,
    )


def _placements(
    bundle: Bundle, stage: ChainStage, schedule: Schedule | None, folder: Path
) -> list[PlacementKernels]:
    fp16 = load_model(bundle, bundle.graph(stage, "fp16", schedule))
    int8 = load_model(bundle, bundle.graph(stage, "int8", schedule))
    files = _save(folder, {"none: FP16": fp16, **dict(placements(int8))})
    found = []
    for name, file in files.items():
        try:
            batches, _ = _build(file, bundle, stage)
        except EngineError as error:
            click.echo(f"{name}: {error}", err=True)
            continue
        found.append(PlacementKernels(_graph_name(stage, schedule), name, batches))
    return found


def _seven_bits(name: str, bundle: Bundle, folder: Path, count: int) -> list[SevenBits]:
    """Return the flipped bits of an encoder with 8-bit weights, and with 7-bit weights made in every way."""
    images = few_images(bundle, folder, None, count, ())
    fp32, int8 = (
        load_model(bundle, bundle.graph("encoder", precision, "iteration-major"))
        for precision in ("fp32", "int8")
    )
    with model_runner(fp32) as runner:
        expected = runner.infer({"image": images})["code"].astype(np.uint8)
    found = []
    for way, change in _WAYS.items():
        model = ir.from_proto(ir.to_proto(int8))
        if change:
            _requantize(model, fp32, change)
        with model_runner(emulate(model, "int8")) as runner:
            codes = runner.infer({"image": images})["code"].astype(np.uint8)
        flipped = 100 * float(flipped_bits(expected, codes).mean())
        found.append(SevenBits(model=name, images=len(images), way=way, flipped_percent=flipped))
    return found


def _requantize(model: ir.Model, fp32: ir.Model, change: Change) -> None:
    """Give the weights of a graph other integers and scales, in place."""
    originals = {node.name: initializer_of(node.inputs[1]) for node in convolutions(fp32)}
    done = set()
    for node in convolutions(model):
        stored, original = initializer_of(node.inputs[1]), originals[node.name]
        dequantizer = node.inputs[1].producer() if node.inputs[1] is not None else None
        if stored is None or stored.dtype != ir.DataType.INT8 or stored in done:
            continue
        done.add(stored)
        assert stored.const_value is not None
        assert original is not None
        assert original.const_value is not None
        assert dequantizer is not None
        steps = step_of(dequantizer.outputs[0])
        assert steps is not None
        integers, factor = change(stored.const_value.numpy(), original.const_value.numpy(), steps)
        stored.const_value = ir.tensor(integers.astype(np.int8), name=stored.name)
        scale = (factor * steps.ravel()).astype(np.float16)
        dequantizer.replace_input_with(1, constant(model, f"{stored.name}/scale", scale))


_WAYS: Mapping[str, Change | None] = {
    "8 bits": None,
    "7 bits, integers halved, rounded in turn": lambda integers, _, __: (halved_integers(integers), 2),
    "integers times 63/127": lambda integers, _, __: (np.rint(integers * (63 / 127)), 127 / 63),
    "from FP32 weights": lambda _, weight, steps: (np.rint(weight / steps * (63 / 127)), 127 / 63),
}
"""How 7-bit weights are made from integers, FP32 weights and steps: the new integers, the scale's factor."""


def _save(folder: Path, models: dict[str, ir.Model]) -> dict[str, Path]:
    files = {name: folder / f"{number}.onnx" for number, name in enumerate(models)}
    for name, file in files.items():
        ir.save(models[name], file)
    return files


def _build(graph: Path, bundle: Bundle, stage: ChainStage) -> tuple[tuple[BatchKernels, ...], float]:
    """Build an engine with a profile for each batch; return its kernels, and the seconds of the build."""
    request = BuildRequest(
        graph=graph,
        engine=graph.with_suffix(".plan"),
        options=RtxOptions(compute_capabilities=(CAPABILITY,)),
        precision="fp16",  # of the engine's checks alone: the graph states the types of its tensors
        batch=Batch(sizes=BATCHES),
        input_shapes=dict(bundle.manifest.input_shapes(stage)),
        timing_cache=None,
        can_run=False,
    )
    started = time.perf_counter()
    kernels = build(request, lambda _: None).kernels
    seconds = time.perf_counter() - started
    found = []
    for listing in kernels:
        assert listing.batch is not None
        assert listing.per_image is not None
        found.append(BatchKernels(listing.batch, listing.kernel_count, listing.per_image))
    return tuple(found), seconds


def _compare(
    load: Callable[[Path], Runner], files: dict[str, Path], bundle: Bundle, stage: ChainStage
) -> tuple[float, bool]:
    """Return the ratio of CPU times of the INT8 to the FP16 form, and whether the results are equal."""
    feeds = random_feeds(bundle, stage, 1)
    with load(files["fp16"]) as fp16, load(files["int8"]) as int8:
        one, other = (next(iter(runner.infer(feeds).values())) for runner in (fp16, int8))
        ratio = cpu_time_ratio(f"timing {stage}", int8, fp16, feeds, ROUNDS)
    return ratio, bool(np.array_equal(one, other))


def _onnxruntime(graph: Path) -> Runner:
    backend = OnnxRuntimeBackend()
    return backend.optimize_int8(read_rounding_graph(graph, backend.version))


def _openvino(graph: Path) -> Runner:
    core = import_openvino().Core()
    model = core.read_model(graph)
    change_before_compilation(model, "int8")
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    return OpenVinoRunner(core.compile_model(model, "CPU", config))


_LIBRARIES = {"ONNX Runtime": _onnxruntime, "OpenVINO": _openvino}


def _graph_name(stage: ChainStage, schedule: Schedule | None) -> str:
    return f"{stage}, {schedule}" if schedule else stage


if __name__ == "__main__":
    main()
