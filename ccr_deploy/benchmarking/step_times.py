"""Percentiles of the steps from an image file to a label, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from ccr_deploy.benchmarking.stage_results import ChainStep, StepTime
from ccr_deploy.benchmarking.statistics import percentile_intervals

if TYPE_CHECKING:
    from typing import Literal

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

STEPS: tuple[ChainStep, ...] = get_args(ChainStep)


def step_times(milliseconds: Floats) -> tuple[StepTime, ...]:
    """Return the time of each step.

    Args:
        milliseconds: ``float64 [rounds, runs, steps]``, the time of each step of each run in ms.
    """
    return tuple(step_time(step, milliseconds[..., number]) for number, step in enumerate(STEPS))


def step_time(step: ChainStep | Literal["sum", "chain"], milliseconds: Floats) -> StepTime:
    """Return the percentiles of one step.

    Args:
        step: the step.
        milliseconds: ``float64 [rounds, runs]``, the time of each run in ms.
    """
    intervals = percentile_intervals(milliseconds, [50, 99])
    median, tail = np.percentile(milliseconds, [50, 99])
    return StepTime(
        step=step,
        latency_ms_p50=float(median),
        latency_ms_p50_interval=intervals[0],
        latency_ms_p99=float(tail),
        latency_ms_p99_interval=intervals[1],
        samples_ms=tuple(map(tuple, milliseconds.tolist())),
    )
