"""Rates of a training: images per second, share of the time spent waiting for data, time left."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

WARM_UP_STEPS = 5
"""Steps that no rate includes: loader processes start, memory is allocated, kernels are compiled."""
WINDOW_STEPS = 100
"""Steps that the current rate is computed over."""


class Mark(NamedTuple):
    """The state of a training at the end of an optimizer step.

    `seconds` are those of a clock. `waited_seconds` and `paused_seconds` are the totals so far: time that the
    training waited for its data, and time that it spent on validation.
    """

    step: int
    seconds: float
    waited_seconds: float
    paused_seconds: float


@dataclass(frozen=True)
class Rate:
    """The rate between two marks; validation does not count.

    Attributes:
        images_per_second: images of all processes together.
        waiting_percent: share of the time that the training waited for its data, in percent.
    """

    images_per_second: float
    waiting_percent: float


class StepRates:
    """Computes rates from the marks of the steps so far.

    Args:
        total_steps: the last optimizer step of the training.
        images_per_step: images of one optimizer step, over all processes.
    """

    def __init__(self, total_steps: int, images_per_step: int) -> None:
        self._total_steps = total_steps
        self._images_per_step = images_per_step
        self._skipped = 0
        self._first: Mark | None = None
        self._window: deque[Mark] = deque(maxlen=WINDOW_STEPS + 1)

    def add(self, mark: Mark) -> None:
        """Add the mark of the step that just ended; the first ones are only warm-up."""
        if self._skipped < WARM_UP_STEPS - 1:
            self._skipped += 1
            return
        self._first = self._first or mark
        self._window.append(mark)

    @property
    def current(self) -> Rate | None:
        """The rate of the last steps; None during the warm-up."""
        return self._rate(self._window[0], self._window[-1]) if self._window else None

    @property
    def overall(self) -> Rate | None:
        """The rate since the warm-up; None during it."""
        return self._rate(self._first, self._window[-1]) if self._first else None

    @property
    def seconds_left(self) -> float | None:
        """The time until the last step, at the speed since the warm-up, with validation; None during it."""
        if not self._first or self._window[-1].step == self._first.step:
            return None
        last = self._window[-1]
        seconds_per_step = (last.seconds - self._first.seconds) / (last.step - self._first.step)
        return (self._total_steps - last.step) * seconds_per_step

    def _rate(self, first: Mark, last: Mark) -> Rate | None:
        seconds = (last.seconds - first.seconds) - (last.paused_seconds - first.paused_seconds)
        if seconds <= 0:
            return None
        return Rate(
            images_per_second=(last.step - first.step) * self._images_per_step / seconds,
            waiting_percent=100 * (last.waited_seconds - first.waited_seconds) / seconds,
        )


def duration_text(seconds: float) -> str:
    """Return a duration such as ``45 s``, ``12 min``, ``3 h 20 min`` or ``2 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
