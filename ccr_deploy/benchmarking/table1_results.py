"""The results of `benchmark --table1`, as they are written to JSON."""

from __future__ import annotations

from ccr_deploy.benchmarking.results import AnswerCheck, Contention, MachineState, Subject
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record

SCHEMA_VERSION = 1


class PaperRow(Record, frozen=True):
    """A row of the paper's Table 1, as it is printed; the baseline has no reduction."""

    model: str
    time_ms: float
    reduction_percent: int | None
    parameters: int
    top1_percent: float


class Table1Model(Record, frozen=True):
    """A model of this project with its counts, and its row of the paper.

    Multiply-accumulates are those of one image over all iterations, without repeated work. A baseline's
    decoder and ResNet-18 count as its classifier.
    """

    model: str
    parameters: int
    encoder_macs: int
    classifier_macs: int
    paper: PaperRow


class Table1Time(Record, frozen=True):
    """The time of one model, or of a part of it, at one image per call.

    `runtime` is ``PyTorch eager`` or the library of the target. `reduction_percent` is how much shorter the
    median is than the baseline's in the same runtime and precision, `reduction_from_eager_percent` than that
    of the baseline in PyTorch eager; None for parts of a model, and in an unreliable run. Intervals are 95 %
    ones. `samples_ms` are the raw samples, one tuple for each round. `fresh_input_ratio` is the median time
    on fresh inputs divided by that on repeated ones, `answers` the comparison with PyTorch on the CPU; None
    in results of earlier versions.
    """

    model: str
    part: Subject
    runtime: str
    precision: EnginePrecision
    runs: int
    latency_ms_p50: float
    latency_ms_p50_interval: Interval
    latency_ms_p99: float
    peak_memory_mib: float
    reduction_percent: float | None = None
    reduction_percent_interval: Interval | None = None
    reduction_from_eager_percent: float | None = None
    samples_ms: tuple[tuple[float, ...], ...] = ()
    fresh_input_ratio: float | None = None
    fresh_input_ratio_interval: Interval | None = None
    answers: AnswerCheck | None = None


class Table1(Record, frozen=True):
    """All results of one run of `benchmark --table1`, with untrained weights.

    `left_out` says which candidates are missing and why.
    """

    schema_version: int
    created_by: str
    target: str
    image_height: int
    image_width: int
    iterations: int
    threads: int
    rounds: int
    machine: MachineState
    models: tuple[Table1Model, ...]
    times: tuple[Table1Time, ...]
    left_out: tuple[str, ...] = ()
    reliable: bool | None = None
    unreliable_reasons: tuple[str, ...] = ()
    contention: tuple[Contention, ...] = ()
