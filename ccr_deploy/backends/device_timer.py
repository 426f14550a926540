"""The time of a run on the GPU, measured by two CUDA events in the runner's own stream."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ccr_deploy.core.gpu import checked

if TYPE_CHECKING:
    from collections.abc import Iterator


class DeviceTimer:
    """Two CUDA events: one before a run's first command on the GPU, one after its last.

    A runner that splits a batch calls `start` and `stop` once per part: the first start and the last stop
    count.

    Args:
        cuda: the bindings of the CUDA runtime.
    """

    def __init__(self, cuda: Any) -> None:  # noqa: ANN401 -- the library has no types
        self._cuda = cuda
        self._start = checked(cuda.cudaEventCreate())
        self._stop = checked(cuda.cudaEventCreate())
        self._is_started = self._is_stopped = False

    def start(self, stream: int) -> None:
        """Record the start event in a stream, unless the run has started before."""
        if not self._is_started:
            checked(self._cuda.cudaEventRecord(self._start, stream))
            self._is_started = True

    def stop(self, stream: int) -> None:
        """Record the stop event in a stream, instead of an earlier one of the same run."""
        checked(self._cuda.cudaEventRecord(self._stop, stream))
        self._is_stopped = True

    def take_milliseconds(self) -> float | None:
        """Return the time between the events in ms, and forget them; None if no run recorded both."""
        is_measured = self._is_started and self._is_stopped
        self._is_started = self._is_stopped = False
        if not is_measured:
            return None
        checked(self._cuda.cudaEventSynchronize(self._stop))
        return float(checked(self._cuda.cudaEventElapsedTime(self._start, self._stop)))

    def close(self) -> None:
        """Destroy the events."""
        self._cuda.cudaEventDestroy(self._start)
        self._cuda.cudaEventDestroy(self._stop)


@contextmanager
def timed_on_device(timer: DeviceTimer | None, stream: int) -> Iterator[None]:
    """Measure the commands that the block puts into a stream; without a timer, do nothing.

    Args:
        timer: the timer; None if nobody measures.
        stream: the CUDA stream.
    """
    if timer is None:
        yield
        return
    timer.start(stream)
    yield
    timer.stop(stream)
