"""The progress of a build from TensorRT's phases, which are nested and have a number of steps each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class BuildPhases:
    """The reports of TensorRT's progress monitor as one percentage that never decreases.

    A phase's inner phases are parts of its current step. A phase may end before its last step. Phases are
    identified by name, as in TensorRT's interface.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._percent = 0

    @property
    def percent(self) -> int:
        """The completed part of the outermost phase, from 0 to 100."""
        return self._percent

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Start a phase.

        Args:
            name: the phase.
            parent: the phase that it is part of; None for an outermost one.
            steps: the number of its steps.
        """
        self._open[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, number: int) -> None:
        """Complete a step of a phase; steps are counted from 0. Phases that were not started are ignored."""
        if name in self._open:
            self._open[name].done = number + 1
            self._update()

    def finish(self, name: str) -> None:
        """End a phase. After the end of an outermost phase the progress is 100, even if steps are missing."""
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
