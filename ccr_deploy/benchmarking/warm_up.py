"""Warm-up: a candidate runs until its rate is steady, or until a time limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.results import WarmUp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WINDOW_SECONDS = 0.05
WINDOW_RUNS = 3
"""A window has at least this many runs, and takes at least `WINDOW_SECONDS`."""
MAX_DIFFERENCE = 0.05
"""Largest relative difference of the medians of two successive windows at a steady rate."""
MAX_SECONDS = 2.0
"""Time limit. A candidate so slow that two windows take longer runs two windows."""


def warm_up(run: Callable[[], int], at_least_seconds: float = 0.0) -> WarmUp:
    """Run until the medians of two successive windows agree.

    Args:
        run: run once, and return the time in nanoseconds.
        at_least_seconds: shortest warm-up, for a GPU whose clocks rise with the load.
    """
    windows: list[list[float]] = []
    medians: list[float] = []
    seconds = 0.0
    while not is_over(medians, seconds, at_least_seconds):
        windows.append(_window(run))
        medians.append(float(np.median(windows[-1])))
        seconds += sum(windows[-1])
    return WarmUp(
        runs=sum(map(len, windows)),
        seconds=round(seconds, 3),
        is_steady=is_steady(medians),
        run_ms=float(1000 * np.mean(windows[-2] + windows[-1])),
    )


def is_over(medians: Sequence[float], seconds: float, at_least_seconds: float) -> bool:
    """Return whether a warm-up has been long enough.

    Args:
        medians: medians of its windows so far, in the order of the runs.
        seconds: duration so far.
        at_least_seconds: shortest warm-up.
    """
    if len(medians) < 2 or seconds < at_least_seconds:
        return False
    return is_steady(medians) or seconds >= max(MAX_SECONDS, at_least_seconds)


def is_steady(medians: Sequence[float]) -> bool:
    """Return whether the last two of the windows' medians agree within `MAX_DIFFERENCE`."""
    if len(medians) < 2:
        return False
    before, last = medians[-2:]
    return abs(last - before) <= MAX_DIFFERENCE * before


def _window(run: Callable[[], int]) -> list[float]:
    """Return the seconds of the runs of one window."""
    samples: list[float] = []
    seconds = 0.0
    while len(samples) < WINDOW_RUNS or seconds < WINDOW_SECONDS:
        samples.append(run() / 1e9)
        seconds += samples[-1]
    return samples
