"""A sample of the answers of timed runs, without work that would slow them down."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.answers import grouped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.benchmarking.answers import Answer, Array

KEPT_RUNS = 32
KEPT_ROWS = 8
"""Inputs of a run whose outputs are kept, the first ones: a large batch has the same fault in all rows, or in
others of another run, and the memory stays small."""


class AnswerSample:
    """The outputs of some runs; each run of all is as likely as any other to be among them.

    Algorithm R of Vitter, "Random sampling with a reservoir", 1985.
    """

    def __init__(self) -> None:
        self._runs = 0
        self._kept: list[tuple[Sequence[int], tuple[Array, ...]]] = []
        self._random = random.Random(0)  # noqa: S311 -- no secret

    def add(self, indices: Sequence[int], outputs: tuple[Array, ...]) -> None:
        """Add a run, which may replace another one.

        Args:
            indices: numbers of its inputs.
            outputs: output of each engine, an array with a row for each input. It is not copied.
        """
        self._runs += 1
        if len(self._kept) < KEPT_RUNS:
            self._kept.append((indices, outputs))
        elif (slot := self._random.randrange(self._runs)) < KEPT_RUNS:
            self._kept[slot] = (indices, outputs)

    def answers(self) -> tuple[Answer, ...]:
        """Return the answers of the runs that are kept."""
        return grouped(
            (indices[:KEPT_ROWS], [array[:KEPT_ROWS] for array in outputs]) for indices, outputs in self._kept
        )
