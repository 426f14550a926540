"""Count the engines that ran on a GPU, and say so at the end: a run in which none did proves nothing."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

from ccr_deploy.backends.runner import Runner
from ccr_deploy.engines.factory import EngineFactory

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping

    from ccr_deploy.engines.store import Engine

BACKENDS = ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
"""The backends whose engines run on a GPU."""


@dataclass(frozen=True, order=True)
class GpuEngine:
    """A kind of engine on a GPU."""

    backend: str
    stage: str
    precision: str


def selects_gpu_tests(mark_expression: str) -> bool:
    """Return whether a run is for the tests on a GPU, by pytest's option ``-m``."""
    return mark_expression.strip() == "gpu"


def summary(runs: Mapping[GpuEngine, int], obstacle: str | None) -> list[str]:
    """Return the lines that say which backend ran what, or the one line that none did.

    Args:
        runs: the number of runs of each kind of engine.
        obstacle: why no engine could run; None if the machine and the kit allow it.
    """
    ran = {engine: count for engine, count in sorted(runs.items()) if count}
    if not ran:
        return [f"no engine ran: {obstacle or 'every test that runs one was skipped or failed before it'}"]
    lines = ["engines that ran:"]
    for backend in sorted({*BACKENDS, *(engine.backend for engine in ran)}):
        engines = [
            f"{engine.stage} {engine.precision} ({count} run{'s' if count > 1 else ''})"
            for engine, count in ran.items()
            if engine.backend == backend
        ]
        lines.append(f"  {backend}: {', '.join(engines) or 'none'}")
    return lines


def exit_status(mark_expression: str, status: int, runs: Mapping[GpuEngine, int]) -> int:
    """Return pytest's exit status: a run of the tests on a GPU fails if no engine ran.

    Args:
        mark_expression: pytest's option ``-m``.
        status: the exit status by the outcomes of the tests.
        runs: the number of runs of each kind of engine.
    """
    if selects_gpu_tests(mark_expression) and not any(runs.values()):
        return status or int(pytest.ExitCode.TESTS_FAILED)
    return status


def is_on_gpu(factory: EngineFactory) -> bool:
    """Return whether a factory's engines run on a GPU; PyTorch, the reference, has none."""
    return factory.target.uses_gpu and not factory.backend.is_reference


@contextmanager
def counted_runs(
    runs: Counter[GpuEngine], counts: Callable[[EngineFactory], bool] = is_on_gpu
) -> Iterator[None]:
    """Count the successful runs of the engines that factories load in this process.

    Engines that a benchmark runs in processes of its own are not counted.

    Args:
        runs: the counter.
        counts: whether the engines of a factory are counted.
    """
    loaded: WeakKeyDictionary[Runner, GpuEngine] = WeakKeyDictionary()
    lock = threading.Lock()
    load, infer = EngineFactory.load, Runner.infer

    def load_and_note(factory: EngineFactory, engine: Engine) -> Runner:
        runner = load(factory, engine)
        if counts(factory):
            key = engine.sidecar.key
            loaded[runner] = GpuEngine(factory.backend.name, key.stage, key.precision)
        return runner

    def infer_and_count(runner: Runner, feeds: Mapping[str, Any]) -> dict[str, Any]:
        outputs = infer(runner, feeds)
        if engine := loaded.get(runner):
            with lock:
                runs[engine] += 1
        return outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EngineFactory, "load", load_and_note)
        patch.setattr(Runner, "infer", infer_and_count)
        yield
