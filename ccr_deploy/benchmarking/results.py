"""What a benchmark found, as it is written to JSON."""

from __future__ import annotations

from typing import Literal

from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record

SCHEMA_VERSION = 3

Subject = Literal["encoder", "classifier", "chain"]
"""What is timed: one stage, or image to logits (where the conventional chain competes too)."""

Phase = Literal["start", "encoder", "classifier", "chain"]
"""When the machine was watched: just before the start, or while a subject was timed."""


class Contention(Record, frozen=True):
    """What kept cores from a benchmark in one of its phases, in cores (CPU seconds a second).

    It is counted over `cores`, those that the benchmark may use; None where the system does not tell.
    """

    phase: Phase
    seconds: float
    cores: int
    other_processes_cores: float | None
    stolen_cores: float | None
    throttled_cores: float | None


class MachineState(Record, frozen=True):
    """Where and in what state the numbers were measured.

    `cpu_busy_percent` is how much of all cores something else used just before the start. `gpu` and its
    driver are those that a GPU's target ran on.
    """

    processor: str
    usable_cores: int
    memory_gib: float
    operating_system: str
    python: str
    cpu_busy_percent: float | None
    frequency_governor: str | None
    gpu: str | None = None
    gpu_driver: str | None = None


class Timing(Record, frozen=True):
    """One candidate's raw samples in numbers.

    `speedup` is the first candidate's median over this one's, within the same run; None where the run is
    unreliable. `is_target` marks what the target runs; the others are there to compare with. The memory is
    the process's peak, and what it holds of a GPU's, None on a CPU.
    """

    subject: Subject
    candidate: str
    is_target: bool
    backend_version: str
    runs: int
    latency_ms_p50: float
    latency_ms_p90: float
    latency_ms_p99: float
    latency_ms_mean: float
    images_per_second: float
    peak_memory_mib: float
    speedup: float | None
    speedup_interval: Interval | None
    device_memory_mib: float | None = None


class BenchmarkReport(Record, frozen=True):
    """Everything one run of `benchmark` found; `left_out` says what could not compete, and why.

    `iterations` is the T that was run; `warnings` say what a reader must know first, such as that it is
    none of `trained_iterations`. A run that is not `reliable` has `unreliable_reasons` and no speed-ups;
    `reliable` is None if the machine was not watched.
    """

    schema_version: int
    created_by: str
    bundle: str
    contract_id: str
    weights_sha256: str
    model: str
    iterations: int
    trained_iterations: tuple[int, ...]
    warnings: tuple[str, ...]
    target: str
    batch: int
    threads: int
    rounds: int
    machine: MachineState
    timings: tuple[Timing, ...]
    left_out: tuple[str, ...]
    reliable: bool | None = None
    unreliable_reasons: tuple[str, ...] = ()
    contention: tuple[Contention, ...] = ()
