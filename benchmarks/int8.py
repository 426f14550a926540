"""Measure calibration and INT8 engines of ``ccr-layer1`` at 224x224, T=8, on a CPU.

``python -m benchmarks.int8`` exports untrained weights (speed does not depend on them), calibrates on
256 crops of scikit-image's photos, then times OpenVINO's engines in every precision against ONNX Runtime
FP32 and PyTorch eager, interleaved, and writes ``benchmarks/results/int8-ccr-layer1.json``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click

from benchmarks.scaffold import (
    IMAGES,
    machine_words,
    preset_option,
    publish,
    rounds_option,
    temporary_folder,
    untrained_bundle_with_fp16,
    untrained_model,
)
from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.interleaving import run_interleaved, timings
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_reasons, without_speedups
from ccr_deploy.benchmarking.results import MachineState, Subject, Timing
from ccr_deploy.benchmarking.worker import Candidate
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.cli.common import TerminalProgress
from ccr_deploy.core.records import Record
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.tables import speedup_cells, unreliable_line

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.benchmarking.interleaving import InterleavedRun
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Stage

CANDIDATES: tuple[tuple[str, EnginePrecision], ...] = (
    ("pytorch", "fp32"),
    ("cpu", "fp32"),
    ("cpu", "int8"),
    ("cpu-openvino", "fp32"),
    ("cpu-openvino", "bf16"),
    ("cpu-openvino", "int8"),
)


class Int8Benchmark(Record, frozen=True):
    """Calibration time, sizes of the encoder's graphs, and times of its engines and of the alternatives."""

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
@preset_option
@rounds_option(20, "Number of rounds; each round times every candidate once.")
def main(name: str, rounds: int) -> None:
    """Calibrate, build, time, and write the result beside this script."""
    with temporary_folder() as root:
        untrained_bundle_with_fp16(name, root)
        seconds, memory = _calibrate(root)
        bundle = Bundle.open(root / "bundle")
        contention = [watch_start()]
        machine = machine_state(start=contention[0])
        found: list[Timing] = []
        for subject, stages in SUBJECTS.items():
            run = _run_interleaved(bundle, EngineStore(root / "engines"), subject, stages, rounds)
            found.extend(timings(subject, run.samples, batch=1))
            contention.append(run.contention)
        reasons = unreliable_reasons(machine.usable_cores, contention, found)
        result = Int8Benchmark(
            schema_version=2,
            model=untrained_model(name, bundle),
            calibration_images=IMAGES,
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
    publish(f"int8-{name}", result, int8_table(result))


# For a child, getrusage reports at least the parent's peak; `peak_memory_mib` reads the child's own.
_COMMAND_WITH_PEAK_MEMORY = """
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


def _calibrate(root: Path) -> tuple[float, int]:
    """Run the command in a separate process; return its time in seconds and its peak memory in MiB.

    It calibrates on all images, so that none is held out and accuracy is not measured.
    """
    options = ["--images", str(root / "images"), "--samples", str(IMAGES)]
    command = ["calibrate", str(root / "bundle"), *options]
    started = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-c", _COMMAND_WITH_PEAK_MEMORY, *command],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - started, int(finished.stderr)


def int8_table(result: Int8Benchmark) -> Table:
    """Return the table, one row per candidate."""
    return Table(
        title="Precisions on a CPU",
        columns=("stage or chain", "p50 ms", "speed-up", "95 % interval", "peak MiB"),
        rows=tuple(
            (
                f"{timing.subject}: {timing.candidate}",
                f"{timing.latency_ms_p50:.2f}",
                *speedup_cells(timing),
                f"{timing.peak_memory_mib:.0f}",
            )
            for timing in result.timings
        ),
        note=f"{result.model}, batch 1, {result.rounds} rounds, interleaved, "
        f"each candidate in its own process, on {machine_words(result.machine)}; "
        f"speed-up: over PyTorch eager; calibrated on {result.calibration_images} images "
        f"in {result.calibration_seconds:.0f} s with {result.calibration_peak_memory_mib / 1024:.1f} GiB",
        warning=unreliable_line(result.unreliable_reasons),
    )


def _run_interleaved(
    bundle: Bundle, store: EngineStore, subject: Subject, stages: tuple[Stage, ...], rounds: int
) -> InterleavedRun:
    candidates = []
    for target, precision in CANDIDATES:
        factory = EngineFactory(bundle, target, store, stage_precisions(precision))
        engines = tuple((factory.build(stage)[0].path, precision) for stage in stages)
        name = "PyTorch eager" if target == "pytorch" else f"{factory.target.backend} {precision}"
        candidates.append(Candidate(name, False, factory.target.options, engines))
    return run_interleaved(subject, candidates, batch=1, rounds=rounds, progress=TerminalProgress())


if __name__ == "__main__":
    main()
