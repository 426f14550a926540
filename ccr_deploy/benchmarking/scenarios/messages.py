"""Messages between a benchmark and the process that runs a scenario or a soak."""

from __future__ import annotations

from pathlib import Path

from ccr_deploy.backends.options import BackendOptions
from ccr_deploy.benchmarking.answers import Answer
from ccr_deploy.benchmarking.results import GpuState
from ccr_deploy.benchmarking.scenario_results import Latencies, ScenarioSettings
from ccr_deploy.benchmarking.timed_runs import InputTimes
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record
from ccr_deploy.core.scenarios import Scenario


class Engines(Record, frozen=True):
    """Engines, each with its precision and SHA-256, that run in sequence on the pool's images.

    The engines of `inputs_by` run once before, and their outputs replace the images: a classifier's inputs
    are the codes of the images. `images` are ``uint8`` of the shape `image_shape`, ``[pool, H, W, 3]``.
    """

    options: BackendOptions
    engines: tuple[tuple[Path, EnginePrecision, str], ...]
    inputs_by: tuple[tuple[Path, EnginePrecision, str], ...]
    images: bytes
    image_shape: tuple[int, int, int, int]


class RunScenario(Record, frozen=True, tag=True):
    """Run a scenario. LoadGen issues the queries, and logs to `loadgen_folder`, unless that is None."""

    engines: Engines
    batch: int
    scenario: Scenario
    settings: ScenarioSettings
    loadgen_folder: Path | None


class RunSoak(Record, frozen=True, tag=True):
    """Run without pauses, and send an `Interval` every `interval_seconds`, until the pipe closes."""

    engines: Engines
    batch: int
    interval_seconds: float


class Started(Record, frozen=True, tag=True):
    """The engines are loaded and warm, and the run begins, which takes about `expected_seconds`.

    `version` is that of the backend's library. `answers` are the outputs for the images of the pool before
    the run, `rounds` the times of repeated and fresh inputs.
    """

    version: str
    expected_seconds: float
    answers: tuple[Answer, ...]
    rounds: tuple[InputTimes, ...]


class LoadGenLog(Record, frozen=True):
    """What LoadGen wrote about a run. `per_second` are completed samples; None if it does not state them."""

    version: str
    is_valid: bool
    invalid_reasons: tuple[str, ...]
    queries: int
    latencies: Latencies
    per_second: float | None
    early_stopping_met: bool | None
    early_stopping_estimate_ms: float | None


class Measured(Record, frozen=True, tag=True):
    """The latencies of a scenario: of queries, but of samples in *offline*; in nanoseconds.

    `duration_nanoseconds` is the time from the first query to the last result.
    """

    nanoseconds: tuple[int, ...]
    queries: int
    samples: int
    duration_nanoseconds: int
    loadgen: LoadGenLog | None = None


class PacedRounds(Record, frozen=True, tag=True):
    """The latencies of *paced* in nanoseconds, for each round: without pauses, and of frames."""

    steady: tuple[tuple[int, ...], ...]
    frames: tuple[tuple[int, ...], ...]
    dropped: int
    duration_nanoseconds: int


class Finished(Record, frozen=True, tag=True):
    """The latencies of a scenario, and the outputs of some of its runs, drawn at random."""

    measured: Measured | PacedRounds
    answers: tuple[Answer, ...]


class Interval(Record, frozen=True, tag=True):
    """The latencies of one interval of a soak in nanoseconds, and the memory and the GPU at its end.

    `answers` are the outputs of some of its runs, drawn at random.
    """

    nanoseconds: tuple[int, ...]
    answers: tuple[Answer, ...]
    start_nanoseconds: int
    duration_nanoseconds: int
    memory_mib: float
    device_memory_mib: float | None
    gpu: GpuState | None


class Failed(Record, frozen=True, tag=True):
    """The engines could not be loaded or run; `reason` is one line."""

    reason: str
