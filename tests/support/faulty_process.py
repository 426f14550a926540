"""A candidate's process, ``python -m tests.support.faulty_process DESCRIPTOR``, whose engines have a fault.

The environment variable `CCR_DEPLOY_TEST_FAULT` names the fault. PyTorch, the reference, has none.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.backends.runner import Arrays, Outputs, Runner
from ccr_deploy.benchmarking import candidate_process
from ccr_deploy.benchmarking.candidate_process import LoadedCandidate
from ccr_deploy.core.child_process import Owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.backends.base import Backend
    from ccr_deploy.benchmarking.worker import RoundSamples

VARIABLE = "CCR_DEPLOY_TEST_FAULT"
_RIGHT_ROUNDS = 2


class FaultyRunner(Runner):
    """An engine behind a fault."""

    def __init__(self, engine: Runner) -> None:
        self.inputs = engine.inputs
        self._engine = engine

    def _close(self) -> None:
        self._engine.close()


class CachingRunner(FaultyRunner):
    """Keeps all answers by their inputs."""

    def __init__(self, engine: Runner) -> None:
        super().__init__(engine)
        self._answers: dict[bytes, Outputs] = {}

    def _run(self, feeds: Arrays) -> Outputs:
        key = b"".join(array.tobytes() for array in feeds.values())
        if key not in self._answers:
            self._answers[key] = self._engine.infer(feeds)
        return {name: array.copy() for name, array in self._answers[key].items()}


class LastAnswerRunner(FaultyRunner):
    """Keeps its last answer only."""

    _key = b""

    def _run(self, feeds: Arrays) -> Outputs:
        key = b"".join(array.tobytes() for array in feeds.values())
        if key != self._key:
            self._key, self._answer = key, self._engine.infer(feeds)
        return {name: array.copy() for name, array in self._answer.items()}


class StaleRunner(FaultyRunner):
    """Returns the answer of the call before, as a runner does that does not wait for the GPU."""

    _answer: Outputs | None = None

    def _run(self, feeds: Arrays) -> Outputs:
        before, self._answer = self._answer, self._engine.infer(feeds)
        return before or self._answer


class TiringRunner(FaultyRunner):
    """Flips all bits and signs after some rounds with right answers."""

    rounds = 0
    """Rounds that this process began."""

    def _run(self, feeds: Arrays) -> Outputs:
        found = self._engine.infer(feeds)
        if TiringRunner.rounds <= _RIGHT_ROUNDS:
            return found
        return {name: ~array if array.dtype == np.uint8 else -array for name, array in found.items()}


FAULTS: dict[str, Callable[[Runner], Runner]] = {
    "caching": CachingRunner,
    "last-answer": LastAnswerRunner,
    "stale": StaleRunner,
    "tiring": TiringRunner,
}


def install(fault: str) -> None:
    """Let the worker load engines with a fault."""
    load = candidate_process.load_engine
    run_round = LoadedCandidate.round

    def counted_round(candidate: LoadedCandidate, runs: int) -> RoundSamples:
        TiringRunner.rounds += 1
        return run_round(candidate, runs)

    def load_with_fault(backend: Backend, *arguments: object) -> Runner:
        engine = load(backend, *arguments)  # type: ignore[arg-type]
        return engine if backend.is_reference else FAULTS[fault](engine)

    candidate_process.load_engine = load_with_fault  # type: ignore[assignment]
    LoadedCandidate.round = counted_round  # type: ignore[method-assign]


if __name__ == "__main__":
    install(os.environ[VARIABLE])
    candidate_process.serve(Owner())
