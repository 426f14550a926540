"""A sample of the answers of timed runs, with so little work that it hardly slows them down."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.answers import grouped, one_by_one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.benchmarking.answers import Answer, Array

KEPT_RUNS = 32
KEPT_ROWS = 8
"""Inputs of a run whose outputs are kept, drawn at random: the outputs of large batches take much memory."""


class AnswerSample:
    """The outputs for up to `KEPT_ROWS` inputs of each of up to `KEPT_RUNS` runs, both drawn at random.

    Each run of all is as likely as any other to be among them: algorithm R of Vitter, "Random sampling with a
    reservoir", 1985.
    """

    def __init__(self) -> None:
        self._runs = 0
        self._kept: list[tuple[Sequence[int], tuple[Array, ...]]] = []
        self._random = random.Random(0)  # noqa: S311 -- no secret

    def add(self, indices: Sequence[int], outputs: tuple[Array, ...]) -> None:
        """Add a run, which may replace another one.

        Args:
            indices: numbers of its inputs.
            outputs: output of each engine, an array with a row for each input. The kept rows are copied.
        """
        self._runs += 1
        slot = len(self._kept) if len(self._kept) < KEPT_RUNS else self._random.randrange(self._runs)
        if slot < KEPT_RUNS:
            rows = sorted(self._random.sample(range(len(indices)), min(KEPT_ROWS, len(indices))))
            kept = [indices[row] for row in rows], tuple(array[rows] for array in outputs)
            self._kept[slot : slot + 1] = [kept]

    def answers(self) -> tuple[Answer, ...]:
        """Return the answers that are kept, each with one input."""
        return grouped(item for indices, outputs in self._kept for item in one_by_one(indices, outputs))
