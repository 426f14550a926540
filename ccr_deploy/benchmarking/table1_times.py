"""Times and reductions of the paper's Table 1, from the timings of its models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from ccr_deploy.benchmarking.statistics import median_ratio_interval
from ccr_deploy.benchmarking.table1_results import Table1Time
from ccr_deploy.core.metrics import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ccr_deploy.benchmarking.results import Subject, Timing
    from ccr_deploy.core.precisions import EnginePrecision

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelTiming:
    """The timing of a model, or of a part of it, in a runtime and precision."""

    model: str
    part: Subject
    runtime: str
    precision: EnginePrecision
    timing: Timing

    @cached_property
    def milliseconds(self) -> Floats:
        """The samples, ``float64 [rounds, runs]`` in ms."""
        return np.array(self.timing.samples_ms)


def table1_times(
    timed: Sequence[ModelTiming], baseline: str, eager: str, *, reliable: bool
) -> tuple[Table1Time, ...]:
    """Return the times of all models, with reductions against the baseline if the run is reliable.

    Args:
        timed: timings of all models, runtimes and precisions, of one interleaved run.
        baseline: the model that the others are compared with.
        eager: the runtime whose baseline, in FP32, the others are compared with too.
        reliable: whether to return reductions.
    """
    times = tuple(map(_time, timed))
    if not reliable:
        return times
    baselines = {
        (entry.runtime, entry.precision): entry.milliseconds for entry in timed if entry.model == baseline
    }
    in_eager = baselines.get((eager, "fp32"))
    return tuple(
        _with_reductions(time, entry, baselines.get((entry.runtime, entry.precision)), in_eager)
        if entry.part == "chain"
        else time
        for time, entry in zip(times, timed, strict=True)
    )


def reduction_percent(baseline: float, time: float) -> float:
    """Return how much shorter a time is than the baseline's, in percent of the baseline's."""
    return 100 * (1 - time / baseline)


def _time(entry: ModelTiming) -> Table1Time:
    timing = entry.timing
    assert timing.latency_ms_p50_interval
    return Table1Time(
        model=entry.model,
        part=entry.part,
        runtime=entry.runtime,
        precision=entry.precision,
        runs=timing.runs,
        latency_ms_p50=timing.latency_ms_p50,
        latency_ms_p50_interval=timing.latency_ms_p50_interval,
        latency_ms_p99=timing.latency_ms_p99,
        peak_memory_mib=timing.peak_memory_mib,
        samples_ms=timing.samples_ms,
        fresh_input_ratio=timing.fresh_input_ratio,
        fresh_input_ratio_interval=timing.fresh_input_ratio_interval,
        answers=timing.answers,
    )


def _with_reductions(
    time: Table1Time, entry: ModelTiming, baseline: Floats | None, in_eager: Floats | None
) -> Table1Time:
    """Add the reductions against the baseline in the same runtime, and in PyTorch eager."""
    if baseline is not None and baseline is not entry.milliseconds:
        ratios = median_ratio_interval(entry.milliseconds, baseline)
        time = replace(
            time,
            reduction_percent=_reduction(baseline, entry.milliseconds),
            reduction_percent_interval=Interval(100 * (1 - ratios.high), 100 * (1 - ratios.low)),
        )
    if in_eager is not None and in_eager is not entry.milliseconds:
        time = replace(time, reduction_from_eager_percent=_reduction(in_eager, entry.milliseconds))
    return time


def _reduction(baseline: Floats, other: Floats) -> float:
    return reduction_percent(float(np.median(baseline)), float(np.median(other)))
