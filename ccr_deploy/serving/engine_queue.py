"""A queue of requests for one engine, and the one thread that loads, runs and closes the engine.

Requests that arrive while the engine runs are batched into its next run, in order of arrival, up to the batch
limit. Under load every run is full; a request that arrives when the engine is idle runs at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.control_groups import memory_in_use
from ccr_deploy.serving.kserve_sdk import InferenceError, ModelNotReady
from ccr_deploy.serving.limits import check_growth
from ccr_deploy.serving.metrics import IMAGES, RUN_IMAGES, RUN_SECONDS, WAITING
from ccr_deploy.serving.refusals import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.serving.limits import Limits

    Rows = npt.NDArray[np.uint8]
    Outputs = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class _Request:
    """Rows of the engine's only input, and the future that receives their outputs."""

    rows: Rows
    answer: asyncio.Future[Outputs]


class EngineQueue:
    """One engine behind a queue. Call `start` before `infer`, and `close` at the end."""

    def __init__(self, name: str, load: Callable[[], Runner], limits: Limits) -> None:
        """Create a queue; `start` loads the engine.

        Args:
            name: the name of the model, for messages and metrics.
            load: a function that loads the engine; called in the engine's thread.
            limits: the batch size and the number of images that may wait.
        """
        self.name = name
        self._load = load
        self._limits = limits
        self._requests: deque[_Request] = deque()
        self._waiting = 0
        self._closing = False
        self._ready = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"engine {name}", daemon=True)
        self._started: Future[None] = Future()

    @property
    def ready(self) -> bool:
        """Whether the engine is loaded and warmed up."""
        return self._ready

    async def start(self) -> None:
        """Load and warm up the engine.

        Raises:
            EngineError: if it cannot be loaded or run, or if its batches need more memory than the limit.
        """
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        # Cancelling `start` must not cancel the future: the thread still sets it.
        await asyncio.shield(asyncio.wrap_future(self._started))

    async def infer(self, rows: Rows) -> Outputs:
        """Return the engine's outputs for the rows of one request, ``uint8 [N, ...]``.

        Raises:
            ModelNotReady: if the engine is not warmed up yet, or is closing.
            BusyError: if too many rows are waiting.
            InferenceError: if the engine fails.
        """
        request = _Request(rows, self._loop.create_future())
        with self._changed:
            if not self._ready or self._closing:
                raise ModelNotReady(self.name)
            if self._waiting + len(rows) > self._limits.max_waiting:
                raise BusyError(
                    f"{self.name}: {self._waiting} images are waiting (limit {self._limits.max_waiting}): "
                    "try again later"
                )
            self._requests.append(request)
            self._count_waiting(len(rows))
            self._changed.notify()
        return await request.answer

    async def close(self) -> None:
        """Run the waiting requests, then close the engine and end its thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        try:
            runner = self._load()
            self._warm_up(runner)
        except Exception as error:  # `start` raises it
            self._started.set_exception(error)
            return
        with runner:
            self._ready = True
            self._started.set_result(None)
            while requests := self._next_requests():
                self._run(runner, requests)

    def _warm_up(self, runner: Runner) -> None:
        """Run every batch size once: backends allocate memory and choose kernels per shape."""
        (spec,) = runner.inputs
        row_shape = [size or 1 for size in spec.shape[1:]]
        held: list[int] = []
        for size in range(1, self._limits.max_batch + 1):
            if self._closing:
                return
            runner.infer({spec.name: np.zeros((size, *row_shape), np.uint8)})
            held.append(memory_in_use())
            check_growth(self.name, held, self._limits)

    def _next_requests(self) -> list[_Request]:
        """Wait for a request; return as many as fit into one run, none if the queue is closed."""
        with self._changed:
            while self._changed.wait_for(lambda: self._requests or self._closing) and self._requests:
                if taken := self._take():
                    return taken
        return []

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
        free = self._limits.max_batch
        while self._requests and len(self._requests[0].rows) <= free:
            request = self._requests.popleft()
            self._count_waiting(-len(request.rows))
            if not request.answer.cancelled():  # cancelled: the client disconnected
                taken.append(request)
                free -= len(request.rows)
        return taken

    def _run(self, runner: Runner, requests: list[_Request]) -> None:
        (spec,) = runner.inputs
        rows = [request.rows for request in requests]
        batch = rows[0] if len(rows) == 1 else np.concatenate(rows)
        started = time.perf_counter()
        try:
            outputs = runner.infer({spec.name: batch})
        except Exception as error:  # a failed run must not stop the server
            self._deliver(partial(_fail, requests, InferenceError(f"{self.name}: {error}")))
            return
        RUN_SECONDS.labels(self.name).observe(time.perf_counter() - started)
        RUN_IMAGES.labels(self.name).observe(len(batch))
        IMAGES.labels(self.name).inc(len(batch))
        self._deliver(partial(_answer, requests, outputs))

    def _deliver(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: no request is waiting
            self._loop.call_soon_threadsafe(callback)

    def _count_waiting(self, rows: int) -> None:
        self._waiting += rows
        WAITING.labels(self.name).set(self._waiting)


def _answer(requests: list[_Request], outputs: Outputs) -> None:
    start = 0
    for request in requests:
        stop = start + len(request.rows)
        if not request.answer.done():
            request.answer.set_result({name: rows[start:stop] for name, rows in outputs.items()})
        start = stop


def _fail(requests: list[_Request], error: InferenceError) -> None:
    for request in requests:
        if not request.answer.done():
            request.answer.set_exception(error)
