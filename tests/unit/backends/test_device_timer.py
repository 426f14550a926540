"""The device timer, over a stand-in for the CUDA runtime whose events count what came before them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from ccr_deploy.backends.device_timer import DeviceTimer, timed_on_device
from ccr_deploy.errors import EngineError

STREAM = 7


@dataclass
class Runtime:
    """A GPU on which every command takes a millisecond."""

    now: float = 0.0
    recorded: list[tuple[int, int]] = field(default_factory=list)
    times: dict[int, float] = field(default_factory=dict)
    events: set[int] = field(default_factory=set)
    status: int = 0

    def _answer(self, *values: object) -> tuple[object, ...]:
        return (SimpleNamespace(value=self.status, name="cudaErrorUnknown"), *values)

    def cudaEventCreate(self):  # noqa: N802
        event = len(self.events)
        self.events.add(event)
        return self._answer(event)

    def cudaEventDestroy(self, event):  # noqa: N802
        self.events.remove(event)
        return self._answer()

    def cudaEventRecord(self, event, stream):  # noqa: N802
        self.recorded.append((event, stream))
        self.times[event] = self.now
        return self._answer()

    def cudaEventSynchronize(self, event):  # noqa: N802
        assert event in self.times
        return self._answer()

    def cudaEventElapsedTime(self, start, stop):  # noqa: N802
        return self._answer(self.times[stop] - self.times[start])


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


def test_the_time_between_the_events_is_measured_in_the_given_stream(runtime: Runtime) -> None:
    timer = DeviceTimer(runtime)
    runtime.now = 5
    with timed_on_device(timer, STREAM):
        runtime.now += 3
    runtime.now += 10
    assert timer.take_milliseconds() == 3
    assert {stream for _, stream in runtime.recorded} == {STREAM}


def test_of_a_run_in_parts_the_first_start_and_the_last_stop_count(runtime: Runtime) -> None:
    timer = DeviceTimer(runtime)
    for _ in range(3):
        with timed_on_device(timer, STREAM):
            runtime.now += 2
        runtime.now += 1  # the host waits between parts
    assert timer.take_milliseconds() == 8


def test_a_result_is_taken_once(runtime: Runtime) -> None:
    timer = DeviceTimer(runtime)
    assert timer.take_milliseconds() is None
    with timed_on_device(timer, STREAM):
        runtime.now += 1
    assert timer.take_milliseconds() == 1
    assert timer.take_milliseconds() is None
    with timed_on_device(timer, STREAM):
        runtime.now += 4
    assert timer.take_milliseconds() == 4


def test_a_run_that_fails_has_no_time(runtime: Runtime) -> None:
    timer = DeviceTimer(runtime)
    with pytest.raises(RuntimeError), timed_on_device(timer, STREAM):
        raise RuntimeError
    assert timer.take_milliseconds() is None


def test_without_a_timer_nothing_is_recorded(runtime: Runtime) -> None:
    with timed_on_device(None, STREAM):
        runtime.now += 1
    assert runtime.recorded == []


def test_closing_destroys_the_events(runtime: Runtime) -> None:
    timer = DeviceTimer(runtime)
    assert len(runtime.events) == 2
    timer.close()
    assert runtime.events == set()


def test_an_error_of_cuda_is_reported(runtime: Runtime) -> None:
    timer = DeviceTimer(runtime)
    runtime.status = 999
    with pytest.raises(EngineError, match="CUDA failed: cudaErrorUnknown"):
        timer.start(STREAM)
