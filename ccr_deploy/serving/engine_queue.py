"""A queue of requests for one engine, and the one thread that loads, runs and closes the engine.

Requests that arrive while the engine runs are batched into its next run, in order of arrival, up to the batch
limit. Under load every run is full; a request that arrives when the engine is idle runs at once.

Requests go to the engine's thread through a `SimpleQueue`, which is written in C: a `threading.Condition`
takes several times as long, for each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.control_groups import memory_in_use
from ccr_deploy.serving.kserve_sdk import InferenceError, ModelNotReady
from ccr_deploy.serving.limits import check_growth
from ccr_deploy.serving.metrics import EngineMetrics
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
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()  # None: the queue is closed
        self._postponed: _Request | None = None
        self._accepted = 0  # rows; changed by the event loop's thread only
        self._taken = 0  # rows; changed by the engine's thread only
        self._closing = False
        self._ready = False
        self._metrics = EngineMetrics(name, self._waiting)
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
        """Return the engine's outputs for the rows of one request, ``uint8 [N, ...]``, at most one batch.

        Raises:
            ModelNotReady: if the engine is not warmed up yet, or is closing.
            BusyError: if too many rows are waiting.
            InferenceError: if the engine fails.
        """
        if not self._ready or self._closing:
            raise ModelNotReady(self.name)
        waiting = self._waiting()
        if waiting + len(rows) > self._limits.max_waiting:
            raise BusyError(
                f"{self.name}: {waiting} images are waiting (limit {self._limits.max_waiting}): "
                "try again later"
            )
        request = _Request(rows, self._loop.create_future())
        self._accepted += len(rows)
        self._requests.put(request)
        return await request.answer

    async def close(self) -> None:
        """Run the waiting requests, then close the engine and end its thread."""
        self._closing = True
        self._requests.put(None)
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
        taken: list[_Request] = []
        free = self._limits.max_batch
        while request := self._next_request(wait=not taken):
            if len(request.rows) > free:
                self._postponed = request
                break
            self._taken += len(request.rows)
            if not request.answer.cancelled():  # cancelled: the client disconnected
                taken.append(request)
                free -= len(request.rows)
        return taken

    def _next_request(self, *, wait: bool) -> _Request | None:
        """Return the next request; None if there is none, or if the queue is closed and empty."""
        request, self._postponed = self._postponed, None
        with contextlib.suppress(Empty):
            return request or self._requests.get(block=wait and not self._closing)
        return None

    def _run(self, runner: Runner, requests: list[_Request]) -> None:
        (spec,) = runner.inputs
        rows = [request.rows for request in requests]
        started = time.perf_counter()
        try:
            batch = rows[0] if len(rows) == 1 else np.concatenate(rows)
            outputs = runner.infer({spec.name: batch})
        except Exception as error:  # a failed run must not stop the server
            self._deliver(partial(_fail, requests, InferenceError(f"{self.name}: {error}")))
            return
        self._metrics.count_run(len(batch), time.perf_counter() - started)
        self._deliver(partial(_answer, requests, outputs))

    def _deliver(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: no request is waiting
            self._loop.call_soon_threadsafe(callback)

    def _waiting(self) -> int:
        """Return the number of rows that are not in a run yet."""
        return self._accepted - self._taken


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
