"""The results of ``benchmarks.scaling``."""

from __future__ import annotations

from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.benchmarking.roofline_results import MatrixRate, MemoryBandwidth
from ccr_deploy.core.records import Record
from ccr_deploy.core.stages import Schedule


class Point(Record, frozen=True):
    """The encoder of one schedule, number of iterations and image size, in FP32 at batch 1.

    `export_cpu_seconds` is the CPU time of the export of a bundle with this encoder and the classifier.
    `engine_memory_mib` is the peak of the process that loads and runs the engine.
    """

    schedule: Schedule
    iterations: int
    image_size: int
    nodes: int
    file_bytes: int
    export_cpu_seconds: float
    build_cpu_seconds: float
    latency_ms_p50: float
    engine_memory_mib: float
    multiply_accumulates: int
    least_bytes: int
    most_bytes: int


class ExportStep(Record, frozen=True):
    """A step of an export: how often it ran, and its CPU time."""

    step: str
    calls: int
    cpu_seconds: float


class ExportSteps(Record, frozen=True):
    """The steps of an export of a preset in all schedules, in FP32 and FP16.

    `cpu_seconds` is the CPU time of the whole export after all libraries are imported, `peak_memory_mib` the
    peak of its process.
    """

    steps: tuple[ExportStep, ...]
    cpu_seconds: float
    peak_memory_mib: float


class ScalingBenchmark(Record, frozen=True):
    """All points on one machine, and the steps of an export at the preset's own T and image size.

    `unreliable_reasons` say which other work took cores while latencies were measured.
    """

    schema_version: int
    model: str
    image_size: int
    iterations: int
    threads: int
    rounds: int
    machine: MachineState
    matrix_rate: MatrixRate
    bandwidth: MemoryBandwidth
    points: tuple[Point, ...]
    export: ExportSteps
    unreliable_reasons: tuple[str, ...] = ()
