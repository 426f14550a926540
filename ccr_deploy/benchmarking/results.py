"""The results of a benchmark, as they are written to JSON."""

from __future__ import annotations

from typing import Literal

from ccr_deploy.benchmarking.roofline_results import Roofline
from ccr_deploy.benchmarking.stage_results import EndToEnd
from ccr_deploy.core import stages
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record

SCHEMA_VERSION = 5

Subject = stages.Subject
"""What is timed: a stage, or the chain."""

Phase = Literal["start", "fresh inputs", "encoder", "classifier", "chain", "chain from file to label"]
"""When contention was measured: before the start, or while something was timed.

Fresh inputs are those before a scenario or a soak; their phase includes the loading of the engines.
"""


class Contention(Record, frozen=True):
    """CPU time that was withheld from a benchmark in one phase, in cores (CPU seconds per second).

    It is measured over `cores`, those that the benchmark may use; None if the system does not provide it.
    """

    phase: Phase
    seconds: float
    cores: int
    other_processes_cores: float | None
    stolen_cores: float | None
    throttled_cores: float | None


class MachineState(Record, frozen=True):
    """The machine, and its state before the start.

    `cpu_busy_percent` is the share of all cores that others used before the start. `gpu` and `gpu_driver`
    are those that the target ran on, None for a CPU target.
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


class Environment(Record, frozen=True):
    """What can change while a benchmark runs, as it is before or after; None or empty if it is not known.

    `affinity` are the numbers of the usable processors. The limits are those of the control groups.
    `frequency_governors` are the different ones of the usable processors, the clocks their lowest and highest
    current clock: after a run, the processors may be idle. `versions` are those of Python, the kernel, the
    GPU's driver and the installed libraries.
    """

    affinity: tuple[int, ...]
    cpu_limit_cores: float | None
    memory_limit_mib: int | None
    instruction_sets: tuple[str, ...]
    frequency_governors: tuple[str, ...]
    lowest_clock_mhz: int | None
    highest_clock_mhz: int | None
    temperatures_celsius: dict[str, float]
    versions: dict[str, str]


class CpuLoad(Record, frozen=True):
    """The highest clock of the usable processors at the ends of a candidate's rounds, in MHz.

    `first_clock_mhz` and `last_clock_mhz` are medians of the first and the last third of the rounds. A
    virtual machine may report a constant.
    """

    first_clock_mhz: float
    last_clock_mhz: float
    lowest_clock_mhz: int


class WarmUp(Record, frozen=True):
    """The warm-up of a candidate before its first round.

    `is_steady` is whether the medians of its last two windows agree, `run_ms` the mean of their runs.
    """

    runs: int
    seconds: float
    is_steady: bool
    run_ms: float


class AnswerCheck(Record, frozen=True):
    """The comparison of the outputs of timed runs with the reference's answers for the same images.

    `runs` were compared, on `images` different images; in scenarios and soaks, each image of a batch counts
    as a run. `varying_images` are those for which not all runs gave the same bytes. `flipped_percent` and
    `min_cosine` are measured as by `verify`; None if the candidate has no code, or no logits for a code that
    equals the reference's, and in scenarios and soaks, which have no reference. `repeats_flipped_percent` and
    `repeats_min_cosine` compare each run with the first one of the same image; they are those of the worst
    image.
    """

    runs: int
    images: int
    varying_images: int
    flipped_percent: float | None
    min_cosine: float | None
    repeats_flipped_percent: float | None
    repeats_min_cosine: float | None
    max_flipped_percent: float | None
    min_cosine_limit: float | None
    passed: bool


class GpuState(Record, frozen=True):
    """The GPU's clocks, power and temperature at one moment, by NVML; None if it does not provide a value.

    `throttle_reasons` are the reasons why its clocks are held down, named as in ``nvidia-smi --query-gpu``.
    """

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_watts: float | None
    temperature_celsius: int | None
    throttle_reasons: tuple[str, ...] = ()


class GpuLoad(Record, frozen=True):
    """The GPU under the load of one candidate.

    `before` was read after the warm-up of the first round, `after` at the end of the last one. The lowest
    clock and the reasons are those of all rounds, whose beginnings and ends were read.
    """

    before: GpuState
    after: GpuState
    lowest_sm_clock_mhz: int | None
    throttle_reasons: tuple[str, ...]


class Timing(Record, frozen=True):
    """The statistics of one candidate's samples.

    Latencies are wall-clock times of whole runs. `device_latency_ms_p50` is the median time from the first
    command on the GPU to the last, by CUDA events in runs of their own; None on a CPU, and for a library that
    does not give its stream. The two ``without_copies`` are the same times of runs whose inputs and outputs
    stay on the GPU; None on a CPU, where nothing is copied, and if the engine cannot run so. `gpu` is None on
    a CPU and without NVML, `cpu` if the system does not report clocks.

    `samples_ms` are the raw samples, one tuple for each round, and `inputs` one text for each round with a
    letter for each sample: ``r`` for the round's repeated input, ``f`` for a fresh one, which never occurred
    before. `fresh_input_ratio` is the median of the fresh ones over that of the repeated ones; all intervals
    are 95 % intervals over the rounds. `engines_sha256`, of the bytes that were loaded, and `precisions` are
    those of the engines in the order in which they run, `engine_bytes` the sizes of their files. `answers` is
    None if there was nothing to compare with.

    `speedup` is the first candidate's median divided by this one's, of the same run; None if the run is
    unreliable. `is_target` marks the target's own engines. `peak_memory_mib` is the peak of the process,
    `device_memory_mib` its GPU memory, None on a CPU.
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
    device_latency_ms_p50: float | None = None
    gpu: GpuLoad | None = None
    precisions: tuple[EnginePrecision, ...] = ()
    engines_sha256: tuple[str, ...] = ()
    engine_bytes: tuple[int, ...] = ()
    samples_ms: tuple[tuple[float, ...], ...] = ()
    inputs: tuple[str, ...] = ()
    latency_ms_p50_interval: Interval | None = None
    latency_ms_p90_interval: Interval | None = None
    latency_ms_p99_interval: Interval | None = None
    fresh_input_ratio: float | None = None
    fresh_input_ratio_interval: Interval | None = None
    latency_without_copies_ms_p50: float | None = None
    device_latency_without_copies_ms_p50: float | None = None
    warm_up: WarmUp | None = None
    answers: AnswerCheck | None = None
    cpu: CpuLoad | None = None


class FastestPyTorch(Record, frozen=True):
    """The target's engines compared with the fastest of several forms of PyTorch, of the same run.

    `speedup` is that candidate's median divided by that of the target's engines.
    """

    subject: Subject
    candidate: str
    speedup: float
    speedup_interval: Interval


class BenchmarkReport(Record, frozen=True):
    """All results of one run of `benchmark`.

    `iterations` is the T of the bundle. `warnings` are those of the bundle, for example that T is not among
    the `trained_iterations`. `left_out` are error messages of candidates that could not be built or loaded,
    and of the measurements of `end_to_end` and `roofline`. A run that is not `reliable` has
    `unreliable_reasons` and no speed-ups; `reliable` is None if the contention was not measured.
    `fastest_pytorch` is empty on a CPU, where PyTorch eager is the only form, and in an unreliable run.
    `roofline` and `end_to_end` are None without these options, and if they failed.
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
    fastest_pytorch: tuple[FastestPyTorch, ...] = ()
    roofline: Roofline | None = None
    end_to_end: EndToEnd | None = None
    environment_before: Environment | None = None
    environment_after: Environment | None = None
