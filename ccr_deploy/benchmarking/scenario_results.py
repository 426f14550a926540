"""The results of `benchmark --scenario` and `benchmark --soak`, as they are written to JSON."""

from __future__ import annotations

from typing import Literal

from ccr_deploy.benchmarking.results import AnswerCheck, Contention, GpuState, MachineState, Subject
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record
from ccr_deploy.core.scenarios import Scenario

SCENARIO_SCHEMA_VERSION = 1
SOAK_SCHEMA_VERSION = 1
QUOTABLE_SECONDS = 600
"""Shortest run of MLPerf's inference rules."""


class EngineRun(Record, frozen=True):
    """What ran, where: common to both results.

    `precisions` and `engines_sha256` are those of the engines in the order in which they run. `contention`
    was measured before the start, while fresh inputs were timed, and during the run. A run with
    `unreliable_reasons` does not show the speed of the engines alone.
    """

    schema_version: int
    created_by: str
    bundle: str
    contract_id: str
    weights_sha256: str
    model: str
    trained_iterations: tuple[int, ...]
    warnings: tuple[str, ...]
    target: str
    subject: Subject
    precisions: tuple[EnginePrecision, ...]
    engines_sha256: tuple[str, ...]
    backend_version: str
    batch: int
    threads: int
    machine: MachineState
    contention: tuple[Contention, ...]
    unreliable_reasons: tuple[str, ...]


class ScenarioSettings(Record, frozen=True):
    """How the queries of a scenario were issued.

    `target_percentile` (0..100) is the percentile that the scenario is judged by, None for throughput.
    `rate_per_second` is that of queries in *server* and of frames in *paced*, `latency_bound_ms` the longest
    latency of *server*; None if the scenario has none. `pool` is the number of images that the samples are
    drawn from, `seed` that of the draws.
    """

    min_duration_seconds: float
    min_queries: int
    samples_per_query: int | None
    target_percentile: float | None
    rate_per_second: float | None
    latency_bound_ms: float | None
    pool: int
    seed: int


class Latencies(Record, frozen=True):
    """Percentiles of raw samples, in ms: the value at index ``floor(n * p)`` of the sorted samples.

    That is LoadGen's definition, without interpolation.
    """

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p97_ms: float
    p99_ms: float
    p99_9_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float


class EarlyStopping(Record, frozen=True):
    """MLPerf's early-stopping rule: what the queries of a run prove with `confidence` about a percentile.

    `minimum_queries` is the number of queries that the rule needs at least. `satisfied` says whether there
    were enough. `estimate_ms` is the latency that the percentile does not exceed with that confidence, after
    the `discarded` highest latencies; None if there were too few queries. With a latency bound (*server*),
    `over_bound` counts the queries over it and `more_queries` says how many more, all under it, would prove
    that the bound is met; both None without a bound.
    """

    percentile: float
    confidence: float
    minimum_queries: int
    satisfied: bool
    discarded: int
    estimate_ms: float | None
    over_bound: int | None = None
    more_queries: int | None = None


class Compared(Record, frozen=True):
    """One quantity of LoadGen's summary beside ours of the same run.

    `difference_percent` is LoadGen's relative to ours.
    """

    quantity: str
    ours: float
    loadgen: float
    difference_percent: float
    agrees: bool


class LoadGenSummary(Record, frozen=True):
    """LoadGen's own summary of a run, and whether it agrees with ours.

    LoadGen's clock includes the calls between it and the engines, ours does not. `agrees` is whether all
    quantities differ by no more than `limit_percent` or `limit_ms`, whichever is more. `is_valid` is the
    verdict of LoadGen, with its `invalid_reasons`.
    """

    version: str
    is_valid: bool
    invalid_reasons: tuple[str, ...]
    queries: int
    compared: tuple[Compared, ...]
    limit_percent: float
    limit_ms: float
    agrees: bool
    early_stopping_met: bool | None
    early_stopping_estimate_ms: float | None


class PacedComparison(Record, frozen=True):
    """A camera's frames beside runs without pauses, of the same run, in interleaved rounds.

    `ratio` is the median latency of frames divided by that of steady runs, with its 95 % interval from
    resampling whole rounds. A frame that arrives while an earlier one is being processed is dropped.
    """

    rounds: int
    steady: Latencies
    steady_samples_ms: tuple[float, ...]
    ratio: float
    ratio_interval: Interval
    frames: int
    dropped_frames: int


class ScenarioResult(EngineRun, frozen=True):
    """The result of one scenario.

    `issued_by` is who issued the queries: ``LoadGen 6.0.17`` or ``ccr-deploy``. Latencies are those of
    queries in *multi-stream* and of samples elsewhere, by our own clock, from the arrival of a query to its
    last result. `samples_ms` are up to 200,000 of them, drawn at random from all, in the order of completion;
    there are `queries` in all, in *offline* `samples`. `samples_per_second` is the number of samples
    divided by `duration_seconds`, from the first query to the last result.

    `bound_met` is whether the share of queries over the latency bound, `over_bound_percent`, is within what
    the target percentile allows; both None without a bound. A run `is_quotable` as MLPerf-like if
    `not_quotable_reasons` is empty: it lasted 600 s, early stopping is satisfied, and LoadGen, if it issued
    the queries, calls the run valid and agrees with our clock.

    `loadgen` is None if ccr-deploy issued the queries, `paced` if the scenario is not *paced*.

    `fresh_input_ratio` is the median time of runs on inputs that no run has seen before, divided by that on a
    repeated input, measured right before the scenario. `answers` compare the outputs of some of its runs,
    drawn at random, with those before it. They are None in results of earlier versions.
    """

    scenario: Scenario
    issued_by: str
    settings: ScenarioSettings
    queries: int
    samples: int
    duration_seconds: float
    samples_per_second: float
    queries_per_second: float
    latencies: Latencies
    samples_ms: tuple[float, ...]
    early_stopping: EarlyStopping | None
    bound_met: bool | None
    over_bound_percent: float | None
    is_quotable: bool
    not_quotable_reasons: tuple[str, ...]
    loadgen: LoadGenSummary | None = None
    paced: PacedComparison | None = None
    fresh_input_ratio: float | None = None
    fresh_input_ratio_interval: Interval | None = None
    answers: AnswerCheck | None = None


class SoakInterval(Record, frozen=True):
    """One interval of a soak: `seconds` from the start of the soak to its start.

    The percentiles are those of all runs of the interval. The clock is the mean of the usable cores, the
    temperature that of the processor's hottest sensor, the power that of its packages and their memory; None
    if the system does not provide them. `gpu` was read at the end of the interval; None on a CPU and
    without NVML.
    """

    seconds: float
    duration_seconds: float
    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    images_per_second: float
    memory_mib: float
    device_memory_mib: float | None
    cpu_clock_mhz: float | None
    cpu_temperature_celsius: float | None
    cpu_power_watts: float | None
    gpu: GpuState | None
    other_processes_cores: float | None
    stolen_cores: float | None
    throttled_cores: float | None


class Drift(Record, frozen=True):
    """The change from the first to the last fifth of a soak's intervals.

    `first` and `last` are the medians of the intervals' values, `change_percent` is their relative
    difference, with its 95 % interval from resampling intervals. The verdict is ``drifts`` if the change is
    more than `limit_percent` and the interval excludes zero, ``steady`` if the interval is within the limit,
    else ``undecided``.
    """

    first: float
    last: float
    change_percent: float
    change_interval: Interval
    limit_percent: float
    verdict: Literal["steady", "drifts", "undecided"]


class SoakResult(EngineRun, frozen=True):
    """The result of a soak: one series of intervals without pauses.

    `minutes` were requested; `ended_early` is whether Ctrl-C ended the run before. `latency_drift` is that of
    the intervals' medians in ms, `throughput_drift` that of their images per second, `memory_drift` that of
    the process's memory in MiB; None if there are fewer than ten intervals. `samples_ms` are up to 10,000
    latencies, drawn at random from all `runs`. The last three fields are as in `ScenarioResult`.
    """

    minutes: float
    ended_early: bool
    duration_seconds: float
    runs: int
    latencies: Latencies
    samples_ms: tuple[float, ...]
    intervals: tuple[SoakInterval, ...]
    latency_drift: Drift | None
    throughput_drift: Drift | None
    memory_drift: Drift | None
    fresh_input_ratio: float | None = None
    fresh_input_ratio_interval: Interval | None = None
    answers: AnswerCheck | None = None
