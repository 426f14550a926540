"""The rounds of a candidate on a GPU, over stand-ins for its engines, for CUDA and for NVML."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.backends.onnxruntime.cuda import CudaOptions
from ccr_deploy.backends.runner import Arrays, Outputs, Runner, TensorSpec
from ccr_deploy.benchmarking import candidate_process
from ccr_deploy.benchmarking.candidate_process import LoadedCandidate
from ccr_deploy.benchmarking.results import GpuState
from ccr_deploy.benchmarking.worker import (
    GPU_WARM_UP_SECONDS,
    MAX_DEVICE_RUNS,
    WARM_UP_RUNS,
    Candidate,
    Start,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENCODER, CLASSIFIER = "encoder", "classifier"


class Timer:
    """A timer of a GPU on which an engine takes 2 ms, if it is started."""

    is_started = False

    def __init__(self, cuda: object) -> None:
        assert cuda == "CUDA"

    def close(self) -> None:
        """Destroy nothing."""

    def take_milliseconds(self) -> float | None:
        was_started, self.is_started = self.is_started, False
        return 2.0 if was_started else None


class Engine(Runner):
    """An engine that adds 1 to its input, and writes down when it ran."""

    only_on_host = ""
    device_memory_mib = None

    def __init__(self, name: str, log: list[tuple[str, bool]], *, has_stream: bool) -> None:
        self.inputs = (TensorSpec(name, "uint8", (None, 4)),)
        self._log = log
        self._has_stream = has_stream

    def _run(self, feeds: Arrays) -> Outputs:
        ((name, array),) = feeds.items()
        self._log.append((name, self.device_timer is not None))
        if self.device_timer and self._has_stream:
            self.device_timer.is_started = True
        return {"output": (array + 1).astype(np.uint8)}

    def on_device(self, feeds: Arrays) -> Callable[[], None] | None:
        ((name, _),) = feeds.items()
        self.device_memory_mib = (self.device_memory_mib or 0.0) + 100.0

        def run() -> None:
            if self.device_timer and self._has_stream:
                self.device_timer.is_started = True

        return None if name == self.only_on_host else run

    def _close(self) -> None:
        self._log.append(("closed", False))


@pytest.fixture
def log() -> list[tuple[str, bool]]:
    return []


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, log: list[tuple[str, bool]], tmp_path: Path):
    """A function that loads a candidate of two engines."""
    readings = iter(range(1000, 2000))

    def load(options, *, without_stream: str | None = None, sensors: bool = True) -> LoadedCandidate:
        monkeypatch.setattr(candidate_process, "make_backend", lambda _: SimpleNamespace(version="1.0"))
        monkeypatch.setattr(
            candidate_process,
            "load_engine",
            lambda _, path, __: Engine(path.name, log, has_stream=path.name != without_stream),
        )
        monkeypatch.setattr(candidate_process, "DeviceTimer", Timer)
        monkeypatch.setattr(candidate_process, "cuda_runtime", lambda: "CUDA")
        read = SimpleNamespace(read=lambda: GpuState(next(readings), None, None, None))
        monkeypatch.setattr(candidate_process, "open_sensors", lambda: read if sensors else None)
        for path in (ENCODER, CLASSIFIER):
            (tmp_path / path).touch()
        engines = ((tmp_path / ENCODER, "fp16"), (tmp_path / CLASSIFIER, "fp16"))
        candidate = Candidate("both", True, options, engines)
        return LoadedCandidate(Start(candidate, 3), ExitStack())

    return load


def test_a_round_on_a_gpu_warms_up_by_time_and_reads_the_sensors_twice(loaded, log) -> None:
    candidate = loaded(CudaOptions())
    log.clear()
    started = time.perf_counter()
    found = candidate.round(5)
    assert time.perf_counter() - started >= GPU_WARM_UP_SECONDS
    assert [state.sm_clock_mhz for state in found.gpu] == [1000, 1001]
    assert len(found.nanoseconds) == 5
    assert found.device_milliseconds == (4.0,) * 5  # the sum of both engines
    assert log[-10:] == [("encoder", True), ("classifier", True)] * 5  # after the timed runs
    assert not any(is_timed for _, is_timed in log[:-10])
    assert len(log) > 2 * (WARM_UP_RUNS + 5 + 5)


def test_the_runs_that_are_measured_on_the_gpu_are_limited(loaded) -> None:
    assert len(loaded(CudaOptions()).round(200).device_milliseconds) == MAX_DEVICE_RUNS


@pytest.mark.parametrize("engine", [ENCODER, CLASSIFIER])
def test_the_time_on_the_gpu_of_a_part_of_the_engines_is_not_reported(loaded, engine: str) -> None:
    assert loaded(CudaOptions(), without_stream=engine).round(3).device_milliseconds == ()


def test_runs_without_copies_have_both_clocks(loaded) -> None:
    found = loaded(CudaOptions()).round(3)
    assert len(found.without_copies_milliseconds) == 3
    assert found.device_without_copies_milliseconds == (4.0,) * 3
    without_stream = loaded(CudaOptions(), without_stream=CLASSIFIER).round(3)
    assert len(without_stream.without_copies_milliseconds) == 3
    assert without_stream.device_without_copies_milliseconds == ()


def test_an_engine_that_cannot_run_without_copies_has_no_such_time(loaded, monkeypatch) -> None:
    monkeypatch.setattr(Engine, "only_on_host", CLASSIFIER)
    found = loaded(CudaOptions()).round(3)
    assert (found.without_copies_milliseconds, found.device_without_copies_milliseconds) == ((), ())
    assert len(found.device_milliseconds) == 3


def test_what_runs_without_copies_need_is_prepared_once_and_is_not_the_engines_memory(
    loaded, monkeypatch
) -> None:
    monkeypatch.setattr(Engine, "device_memory_mib", 10.0)
    candidate = loaded(CudaOptions())
    assert [candidate.round(3).device_memory_mib for _ in range(2)] == [20.0, 20.0]
    assert [runner.device_memory_mib for runner in candidate._runners] == [110.0, 110.0]


def test_without_sensors_there_are_no_states(loaded) -> None:
    assert loaded(CudaOptions(), sensors=False).round(3).gpu == ()


def test_a_round_on_a_cpu_is_two_runs_and_the_timed_ones(loaded, log) -> None:
    candidate = loaded(OnnxRuntimeOptions())
    assert len(log) == 2
    log.clear()
    found = candidate.round(4)
    assert log == [("encoder", False), ("classifier", False)] * (WARM_UP_RUNS + 4)
    assert (found.device_milliseconds, found.gpu, found.device_memory_mib) == ((), (), None)
