"""Calibration and INT8 of ``ccr-layer1`` at 224x224, T=8, on a CPU.

``python -m benchmarks.int8`` exports untrained weights (speed does not depend on them), calibrates on
256 crops of scikit-image's photos, then times OpenVINO's engines in every precision against ONNX Runtime
FP32 and PyTorch eager, all in turn, and writes ``benchmarks/results/int8-ccr-layer1.json``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pydantic
from PIL import Image

from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.interleaving import race, timings
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_reasons, without_speedups
from ccr_deploy.benchmarking.results import MachineState, Subject, Timing
from ccr_deploy.benchmarking.worker import Competitor
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.cli.common import TerminalProgress, stdout_console
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.models.presets import preset
from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.tables import speedup_cells, unreliable_line
from ccr_deploy.reporting.terminal import print_table
from ccr_deploy.workflow.export import export_with_fp16
from training.data.textures import load_photos

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.interleaving import InterleavedRun
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Stage

RESULTS = Path(__file__).parent / "results"
CALIBRATION_IMAGES = 256
COMPETITORS: tuple[tuple[str, EnginePrecision], ...] = (
    ("pytorch", "fp32"),
    ("cpu", "fp32"),
    ("cpu", "int8"),
    ("cpu-openvino", "fp32"),
    ("cpu-openvino", "bf16"),
    ("cpu-openvino", "int8"),
)


@dataclass(frozen=True)
class Int8Benchmark:
    """What calibrating took, how large the encoder's graphs are, and how fast its engines and others are."""

    schema_version: int
    model: str
    calibration_images: int
    calibration_seconds: float
    calibration_peak_memory_mib: float
    encoder_graph_bytes: dict[str, int]
    rounds: int
    machine: MachineState
    timings: tuple[Timing, ...]
    unreliable_reasons: tuple[str, ...] = ()


@click.command()
@click.option("--preset", "name", default="ccr-layer1", show_default=True, help="Which model.")
@click.option("--rounds", default=20, show_default=True, help="Turns of each competitor.")
def main(name: str, rounds: int) -> None:
    """Calibrate, build, time, and write the result beside this script."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        untrained_bundle(name, root)
        seconds, memory = _calibrate(root)
        bundle = Bundle.open(root / "bundle")
        contention = [watch_start()]
        machine = machine_state(start=contention[0])
        found: list[Timing] = []
        for subject, stages in SUBJECTS.items():
            run = _race(bundle, EngineStore(root / "engines"), subject, stages, rounds)
            found.extend(timings(subject, run.samples, batch=1))
            contention.append(run.contention)
        reasons = unreliable_reasons(machine.usable_cores, contention, found)
        model = bundle.manifest.model
        result = Int8Benchmark(
            schema_version=2,
            model=f"{name}, untrained, {model.image_height}x{model.image_width}, T={model.iterations}",
            calibration_images=CALIBRATION_IMAGES,
            calibration_seconds=round(seconds, 1),
            calibration_peak_memory_mib=memory,
            encoder_graph_bytes={
                graph.precision: graph.file.bytes
                for graph in bundle.manifest.graphs
                if graph.stage == "encoder"
            },
            rounds=rounds,
            machine=machine,
            timings=without_speedups(found) if reasons else tuple(found),
            unreliable_reasons=reasons,
        )
    text = pydantic.TypeAdapter(Int8Benchmark).dump_json(result, indent=2) + b"\n"
    write_atomically(RESULTS / f"int8-{name}.json", text)
    print_table(stdout_console(), int8_table(result))


# getrusage's peak of a child begins at its parent's; the kernel's high-water mark is the child's own.
_COMMAND_THAT_TELLS_ITS_PEAK = """
import atexit, sys
from ccr_deploy.core.child_process import peak_memory_mib
from ccr_deploy.cli import main
atexit.register(lambda: print(round(peak_memory_mib()), file=sys.stderr))
main()
"""

SUBJECTS: dict[Subject, tuple[Stage, ...]] = {
    "encoder": ("encoder",),
    "classifier": ("classifier",),
    "chain": ("encoder", "classifier"),
}


def untrained_bundle(name: str, root: Path) -> Bundle:
    """Export a preset with random weights, on which speed does not depend, in FP32 and FP16.

    Args:
        name: the preset.
        root: where ``images`` and ``bundle`` are written.
    """
    write_crops(root / "images", preset(name).image_height)
    return export_with_fp16(
        untrained_checkpoint(preset(name)),
        root / "bundle",
        schedules=("iteration-major",),
        images=root / "images",
        progress=TerminalProgress(),
    )


def write_crops(folder: Path, size: int) -> None:
    """256 crops of scikit-image's photos, enlarged where a photo is too small."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    photos = load_photos()
    for number in range(CALIBRATION_IMAGES):
        image = Image.fromarray(photos[number % len(photos)].pixels)
        scale = max(1.0, size / min(image.size))
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        left = int(generator.integers(image.width - size + 1))
        top = int(generator.integers(image.height - size + 1))
        image.crop((left, top, left + size, top + size)).save(folder / f"{number:03d}.png")


def _calibrate(root: Path) -> tuple[float, int]:
    """Runs the command in a process of its own: its seconds, and its peak memory in MiB.

    It is given as many pictures as there are, so that none is held out and accuracy is not measured.
    """
    options = ["--images", str(root / "images"), "--samples", str(CALIBRATION_IMAGES)]
    command = ["calibrate", str(root / "bundle"), *options]
    started = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-c", _COMMAND_THAT_TELLS_ITS_PEAK, *command],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - started, int(finished.stderr)


def int8_table(result: Int8Benchmark) -> Table:
    """One row a competitor."""
    return Table(
        title="Precisions on a CPU",
        columns=("what", "p50 ms", "speed-up", "95 % interval", "peak MiB"),
        rows=tuple(
            (
                f"{timing.subject}: {timing.competitor}",
                f"{timing.latency_ms_p50:.2f}",
                *speedup_cells(timing),
                f"{timing.peak_memory_mib:.0f}",
            )
            for timing in result.timings
        ),
        note=f"{result.model}, batch 1, {result.rounds} rounds in turn, a process each, on "
        f"{result.machine.processor}, {result.machine.usable_cores} cores; speed-up: against PyTorch eager; "
        f"calibrated on {result.calibration_images} pictures in {result.calibration_seconds:.0f} s "
        f"with {result.calibration_peak_memory_mib / 1024:.1f} GiB",
        warning=unreliable_line(result.unreliable_reasons),
    )


def _race(
    bundle: Bundle, store: EngineStore, subject: Subject, stages: tuple[Stage, ...], rounds: int
) -> InterleavedRun:
    competitors = []
    for target, precision in COMPETITORS:
        factory = EngineFactory(bundle, target, store, stage_precisions(precision))
        engines = tuple((factory.build(stage)[0].path, precision) for stage in stages)
        name = "PyTorch eager" if target == "pytorch" else f"{factory.target.backend} {precision}"
        competitors.append(Competitor(name, False, factory.target.options, engines))
    return race(subject, competitors, batch=1, rounds=rounds, progress=TerminalProgress())


if __name__ == "__main__":
    main()
