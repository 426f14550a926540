"""The results of `benchmark --roofline`: what the machine can do, and the share of it that engines reach.

The model is that of S. Williams, A. Waterman and D. Patterson: "Roofline: An Insightful Visual Performance
Model for Multicore Architectures", Communications of the ACM 52(4), 2009. A run takes at least as long as its
multiply-accumulates take at the machine's matrix rate, and at least as long as its bytes take at the memory
bandwidth.
"""

from __future__ import annotations

from typing import Literal

from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record
from ccr_deploy.core.stages import Subject

Limit = Literal["matrix rate", "memory", "undecided"]
"""What bounds a run; undecided if it depends on how many bytes fusion and caches save."""


class MatrixRate(Record, frozen=True):
    """The highest rate of a large matrix product on this machine, in 10^9 multiply-accumulates per second.

    `measured_by` names the library, the product and the number of threads.
    """

    precision: EnginePrecision
    gmac_per_second: float
    measured_by: str


class MemoryBandwidth(Record, frozen=True):
    """The highest memory bandwidth that was measured, in 10^9 bytes per second, read and written.

    `measured_by` names the kernel, the size of its arrays and the number of threads.
    """

    gigabytes_per_second: float
    measured_by: str


class EngineRoofline(Record, frozen=True):
    """One candidate against the machine's limits. All numbers are those of one run of the whole batch.

    `int8_multiply_accumulates` are those of all `multiply_accumulates` whose inputs are quantized.
    `least_bytes` are the weights, the inputs and the outputs, each once: the traffic if caches and fusion
    saved all other. `most_bytes` are the tensors that each node of the graph reads and writes: the traffic if
    they saved nothing. Arithmetic intensities are multiply-accumulates per byte: `lowest_intensity` of
    `most_bytes`, `highest_intensity` of `least_bytes`.

    `matrix_ms` is the time that the matrix rates alone allow, None if one that it needs was not measured.
    `least_memory_ms` and `most_memory_ms` are the times that the bandwidth alone allows for both numbers of
    bytes. `bound_ms`, a time that no run can beat, is the longer of `matrix_ms` and `least_memory_ms`, and
    `reached_percent` is its share of the measured median.
    """

    subject: Subject
    candidate: str
    is_target: bool
    multiply_accumulates: int
    int8_multiply_accumulates: int
    least_bytes: int
    most_bytes: int
    lowest_intensity: float
    highest_intensity: float
    latency_ms_p50: float
    matrix_ms: float | None
    least_memory_ms: float
    most_memory_ms: float
    bound_ms: float | None
    reached_percent: float | None
    limit: Limit | None


class Roofline(Record, frozen=True):
    """The machine's limits, and the engines of the target, in each precision and schedule, against them.

    `not_measured` are the reasons why a rate is missing. PyTorch's candidates are not among `engines`,
    because they run no graph of the bundle.
    """

    threads: int
    matrix_rates: tuple[MatrixRate, ...]
    bandwidth: MemoryBandwidth
    not_measured: tuple[str, ...]
    engines: tuple[EngineRoofline, ...]
