"""How far a build is, from TensorRT's phases: nested, each with a number of steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class BuildPhases:
    """What TensorRT's progress monitor tells, as one number that never falls.

    A phase's inner phases are parts of its current step. Phases may end early and are told apart by name
    alone, as TensorRT does.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._percent = 0

    @property
    def percent(self) -> int:
        """How much of the outermost phase is done, from 0 to 100."""
        return self._percent

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of some steps begins."""
        self._open[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, number: int) -> None:
        """A phase's step of a number, counted from 0, is done."""
        if name in self._open:
            self._open[name].done = number + 1
            self._update()

    def finish(self, name: str) -> None:
        """A phase ends; an outermost one is then done, whatever its steps were."""
        phase = self._open.pop(name, None)
        if phase is not None and phase.parent is None:
            self._percent = 100

    def _update(self) -> None:
        outermost = [name for name, phase in self._open.items() if phase.parent is None]
        if outermost:
            done = min(1.0, self._fraction(outermost[0]))
            self._percent = max(self._percent, min(99, int(100 * done)))

    def _fraction(self, name: str) -> float:
        phase = self._open[name]
        inner = [self._fraction(child) for child, entry in self._open.items() if entry.parent == name]
        return min(1.0, (phase.done + min(1.0, max(inner, default=0.0))) / phase.steps)
