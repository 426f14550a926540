"""Engines with a planted fault. The environment variable `CCR_DEPLOY_TEST_FAULT` names the fault."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.backends.runner import Arrays, Outputs, Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.backends.base import Backend

VARIABLE = "CCR_DEPLOY_TEST_FAULT"


class FaultyRunner(Runner):
    """An engine behind a fault."""

    def __init__(self, engine: Runner) -> None:
        self.inputs = engine.inputs
        self._engine = engine

    def _close(self) -> None:
        self._engine.close()


class CachingRunner(FaultyRunner):
    """Caches all answers by their inputs."""

    def __init__(self, engine: Runner) -> None:
        super().__init__(engine)
        self._answers: dict[bytes, Outputs] = {}

    def _run(self, feeds: Arrays) -> Outputs:
        key = b"".join(array.tobytes() for array in feeds.values())
        if key not in self._answers:
            self._answers[key] = self._engine.infer(feeds)
        return {name: array.copy() for name, array in self._answers[key].items()}


class LastAnswerRunner(FaultyRunner):
    """Caches its last answer only."""

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
    """Flips all bits and signs once this process is tired."""

    is_tired = False

    def _run(self, feeds: Arrays) -> Outputs:
        found = self._engine.infer(feeds)
        if not TiringRunner.is_tired:
            return found
        return {name: ~array if array.dtype == np.uint8 else -array for name, array in found.items()}


class FailingRunner(FaultyRunner):
    """Raises an error without a message once this process is tired."""

    def _run(self, feeds: Arrays) -> Outputs:
        if TiringRunner.is_tired:
            raise MemoryError
        return self._engine.infer(feeds)


_FAULTS: dict[str, Callable[[Runner], Runner]] = {
    "caching": CachingRunner,
    "failing": FailingRunner,
    "last-answer": LastAnswerRunner,
    "stale": StaleRunner,
    "tiring": TiringRunner,
}


def with_fault(load: Callable[..., Runner]) -> Callable[..., Runner]:
    """Return a function that loads engines with the fault; PyTorch, the reference, has none."""
    fault = _FAULTS[os.environ[VARIABLE]]

    def load_with_fault(backend: Backend, *arguments: object, **options: object) -> Runner:
        engine = load(backend, *arguments, **options)
        return engine if backend.is_reference else fault(engine)

    return load_with_fault
