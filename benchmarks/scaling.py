"""Measure what grows with the number of iterations T and with the size of the images, and what export spends.

``python -m benchmarks.scaling`` exports untrained encoders of ``ccr-layer1`` for T = 1 to 32 at 224x224 and
for images of 64 to 512 pixels at T = 8, in both exported schedules, builds FP32 engines of ONNX Runtime and
times them. It takes about 6 minutes on two cores, and writes ``benchmarks/results/scaling.json``. Exports and
builds are measured in CPU time of the process, so that other load on the machine matters little; latency is
wall-clock time, and ``machine`` says how busy the machine was.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import onnx_ir as ir

from benchmarks.export_steps import measure_export
from benchmarks.scaffold import preset_option, publish, rounds_option, temporary_folder
from benchmarks.scaling_results import Point, ScalingBenchmark
from benchmarks.scaling_tables import scaling_table, steps_table
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.interleaving import run_interleaved, timings
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.machine_limits import measure_limits
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.benchmarking.worker import Candidate
from ccr_deploy.cli.common import TerminalProgress
from ccr_deploy.core.stages import EXPORTED_SCHEDULES
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.export.exporter import export_bundle, resized
from ccr_deploy.graphs.work import graph_work
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.models.presets import preset

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.benchmarking.results import Contention
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Schedule

ITERATIONS = (1, 2, 4, 8, 16, 32)
SIZES = (64, 128, 224, 320, 512)
TARGET = "cpu"
"""ONNX Runtime, whose engines are built in seconds."""


@click.command()
@preset_option
@rounds_option(4, "Number of rounds; each times both schedules once.")
def main(name: str, rounds: int) -> None:
    """Measure, and write the result beside this script."""
    checkpoint = untrained_checkpoint(preset(name))
    size, iterations = checkpoint.config.image_height, checkpoint.config.iterations
    shapes = dict.fromkeys(
        [*((count, size) for count in ITERATIONS), *((iterations, pixels) for pixels in SIZES)]
    )
    result = measure_scaling(name, list(shapes), rounds)
    publish("scaling", result, scaling_table(result), steps_table(result))


def measure_scaling(name: str, shapes: Sequence[tuple[int, int]], rounds: int) -> ScalingBenchmark:
    """Measure a preset.

    Args:
        name: the preset.
        shapes: number of iterations, and height and width of the images, of each point.
        rounds: number of rounds of the timing; each times both schedules once.
    """
    config = preset(name)
    threads = thread_count()
    watched = [watch_start()]
    machine = machine_state(start=watched[0])
    limits = measure_limits(("fp32",), threads, on_gpu=False, progress=TerminalProgress())
    export = measure_export(name)
    points: list[Point] = []
    with TerminalProgress().task("measuring points", len(shapes)) as advance:
        for iterations, size in shapes:
            with temporary_folder() as folder:
                found, observed = _measured(name, folder, iterations, size, rounds)
            points.extend(found)
            watched.append(observed)
            advance(1)
    return ScalingBenchmark(
        schema_version=1,
        model=f"{name}, untrained",
        image_size=config.image_height,
        iterations=config.iterations,
        threads=threads,
        rounds=rounds,
        machine=machine,
        matrix_rate=limits.rates[0],
        bandwidth=limits.bandwidth,
        points=tuple(points),
        export=export,
        unreliable_reasons=unreliable_reasons(threads, watched),
    )


def _measured(
    name: str, folder: Path, iterations: int, size: int, rounds: int
) -> tuple[list[Point], Contention]:
    """Return the point of each schedule, and the contention while they were timed."""
    exported = {
        schedule: _exported(name, folder / schedule, iterations, size, schedule)
        for schedule in EXPORTED_SCHEDULES
    }
    built = {}
    for schedule, (bundle, _) in exported.items():
        factory = EngineFactory(bundle, TARGET, EngineStore(folder / "engines"))
        started = time.process_time()
        engine, _ = factory.build("encoder", schedule)
        candidate = Candidate(schedule, True, factory.target.options, ((engine.path, "fp32"),))
        built[schedule] = candidate, time.process_time() - started
    candidates = [candidate for candidate, _ in built.values()]
    run = run_interleaved("encoder", candidates, batch=1, rounds=rounds)
    measured = zip(exported.items(), timings("encoder", run.samples, 1), strict=True)
    points = []
    for (schedule, (bundle, export_seconds)), timing in measured:
        graph = bundle.graph("encoder", "fp32", schedule)
        model = ir.load(bundle.file(graph.file))
        work = graph_work(model, 1)
        point = Point(
            schedule=schedule,
            iterations=iterations,
            image_size=size,
            nodes=len(model.graph),
            file_bytes=graph.file.bytes,
            export_cpu_seconds=round(export_seconds, 3),
            build_cpu_seconds=round(built[schedule][1], 3),
            latency_ms_p50=round(timing.latency_ms_p50, 3),
            engine_memory_mib=round(timing.peak_memory_mib, 1),
            multiply_accumulates=work.multiply_accumulates,
            least_bytes=work.least_bytes,
            most_bytes=work.most_bytes,
        )
        points.append(point)
    return points, run.contention


def _exported(
    name: str, folder: Path, iterations: int, size: int, schedule: Schedule
) -> tuple[Bundle, float]:
    """Export a bundle with one encoder in FP32; return it and the CPU seconds."""
    checkpoint = resized(untrained_checkpoint(preset(name)), iterations, (size, size))
    started = time.process_time()
    bundle = export_bundle(checkpoint, folder, schedules=[schedule])
    return bundle, time.process_time() - started


if __name__ == "__main__":
    main()
