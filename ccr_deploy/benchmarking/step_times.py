"""Percentiles of the steps from an image file to a label, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from ccr_deploy.benchmarking.stage_results import ChainStep, StepTime
from ccr_deploy.core.metrics import BOOTSTRAP_SAMPLES, percentile_interval

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    import numpy.typing as npt

    from ccr_deploy.core.metrics import Interval

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
    intervals = bootstrap_interval(lambda drawn: np.percentile(drawn, [50, 99]), milliseconds)
    median, tail = np.percentile(milliseconds, [50, 99])
    return StepTime(
        step=step,
        latency_ms_p50=float(median),
        latency_ms_p50_interval=intervals[0],
        latency_ms_p99=float(tail),
        latency_ms_p99_interval=intervals[1],
        samples_ms=tuple(map(tuple, milliseconds.tolist())),
    )


def difference_of_medians(one: Floats, other: Floats) -> tuple[float, Interval]:
    """Return the median of `one` minus that of `other`, and its 95 % interval.

    Args:
        one: ``float64 [rounds, runs]`` in ms.
        other: ``float64 [rounds, runs]`` in ms, of the same rounds.
    """

    def difference(first: Floats, second: Floats) -> Floats:
        return np.array([np.median(first) - np.median(second)])

    (interval,) = bootstrap_interval(difference, one, other)
    return float(difference(one, other)[0]), interval


def bootstrap_interval(
    statistics: Callable[..., Floats], *samples: Floats, seed: int = 0
) -> tuple[Interval, ...]:
    """Return the 95 % interval of each statistic by bootstrapping whole rounds.

    The runs of a round share the momentary load of the machine, so they are not independent.

    Args:
        statistics: computes statistics, ``float64 [N]``, of drawn samples.
        samples: arrays ``float64 [rounds, runs]``, from which the same rounds are drawn.
        seed: seed of the resampling.
    """
    rounds = len(samples[0])
    drawn = np.random.default_rng(seed).integers(rounds, size=(BOOTSTRAP_SAMPLES, rounds))
    found = np.array([statistics(*(entry[chosen] for entry in samples)) for chosen in drawn])
    return tuple(percentile_interval(column) for column in found.T)
