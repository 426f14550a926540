"""Cases of an engine's queue, whose engine waits in each run until the case lets it continue.

``python -m tests.support.queue_cases`` prints the outcome of each case as JSON. It is a process of its own,
because KServe's SDK and Triton's client cannot be imported into one. The engine runs 4 images at once, and 8
may wait; the images of a request have one value, and a run with a `FAILING` one fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import REGISTRY

from ccr_deploy.backends.runner import TensorSpec
from ccr_deploy.errors import EngineError
from ccr_deploy.serving.engine_queue import EngineQueue
from ccr_deploy.serving.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ccr_deploy.backends.runner import Arrays

LIMITS = Limits(max_batch=4, max_waiting=8)
PATIENCE_SECONDS = 60
FAILING = 99


class GatedEngine:
    """An engine that returns its input. Each run waits for `release`, in the warm-up only if told to."""

    inputs = (TensorSpec("image", "uint8", (None, 1)),)

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.closed = 0
        self.warm_up_waits = False
        self.warm_up_runs = 0
        self._entered = threading.Semaphore(0)
        self._released = threading.Semaphore(0)

    def __enter__(self) -> GatedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    def infer(self, feeds: Arrays) -> Arrays:
        values = feeds["image"][:, 0].tolist()
        is_warm_up = self.warm_up_runs < LIMITS.max_batch
        if is_warm_up:
            self.warm_up_runs += 1
        else:
            self.runs.append(values)
        if self.warm_up_waits or not is_warm_up:
            self._entered.release()
            assert self._released.acquire(timeout=PATIENCE_SECONDS)
        if FAILING in values:
            raise EngineError("it fails")
        return {"code": feeds["image"]}

    async def entered(self) -> None:
        """Wait until the next run has begun."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE_SECONDS)

    def release(self, runs: int = 1) -> None:
        """Let runs continue."""
        self._released.release(runs)


class Case:
    """A queue, its engine, and the requests that were sent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.engine = GatedEngine()
        self.queue: EngineQueue = EngineQueue(name, lambda: self.engine, LIMITS)
        self.sent: list[asyncio.Task[Any]] = []
        self.seen_waiting: list[float | None] = []

    async def send(self, value: int, images: int) -> asyncio.Task[Any]:
        """Send a request; return when it is in the queue."""
        self.sent.append(asyncio.create_task(self.queue.infer(np.full((images, 1), value, np.uint8))))
        await asyncio.sleep(0)
        return self.sent[-1]

    async def begin_to_close(self) -> asyncio.Task[None]:
        closing = asyncio.create_task(self.queue.close())
        await asyncio.sleep(0)
        return closing

    def see_waiting(self) -> None:
        """Keep the number of waiting images, from the metrics."""
        self.seen_waiting.append(
            REGISTRY.get_sample_value("ccr_deploy_waiting_images", {"model_name": self.name})
        )

    async def outcome(self) -> dict[str, object]:
        """Let all runs continue and close the queue; return what the engine and the clients received."""
        self.engine.release(100)
        await self.queue.close()
        answers = await asyncio.gather(*self.sent, return_exceptions=True)
        self.see_waiting()
        return {
            "runs": self.engine.runs,
            "answers": [
                type(answer).__name__ if isinstance(answer, BaseException) else answer["code"][:, 0].tolist()
                for answer in answers
            ],
            "waiting": self.seen_waiting,
            "closed": self.engine.closed,
            "warm_up_runs": self.engine.warm_up_runs,
        }


async def batched_in_order(case: Case) -> None:
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    for value, images in ((2, 1), (3, 2), (4, 3), (5, 1)):
        await case.send(value, images)
    case.see_waiting()
    case.engine.release()
    await case.engine.entered()
    case.see_waiting()


async def closed_while_postponed(case: Case) -> None:
    """Close when the engine's thread has taken a request that does not fit, and postponed it."""
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    await case.send(2, 3)
    await case.send(3, 2)
    case.engine.release()
    await case.engine.entered()
    case.see_waiting()
    closing = await case.begin_to_close()
    case.engine.release(100)
    await closing


async def closed_before_it_is_postponed(case: Case) -> None:
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    await case.send(2, 3)
    await case.send(3, 2)
    await case.begin_to_close()


async def postponed_and_cancelled(case: Case) -> None:
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    await case.send(2, 3)
    postponed = await case.send(3, 2)
    case.engine.release()
    await case.engine.entered()
    postponed.cancel()
    await case.send(4, 1)
    case.engine.release()
    await case.engine.entered()
    case.see_waiting()


async def cancelled(case: Case) -> None:
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    request = await case.send(2, 4)
    await case.send(3, 4)
    request.cancel()
    case.see_waiting()


async def only_cancelled_ones_are_left(case: Case) -> None:
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    for value in (2, 3):
        (await case.send(value, 4)).cancel()
    await case.begin_to_close()


async def cancelled_in_its_run(case: Case) -> None:
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    request = await case.send(2, 1)
    await case.send(3, 1)
    case.engine.release()
    await case.engine.entered()
    request.cancel()


async def failed_run(case: Case) -> None:
    """A run fails, after one of its requests was cancelled."""
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    request = await case.send(FAILING, 1)
    await case.send(2, 1)
    case.engine.release()
    await case.engine.entered()
    request.cancel()
    await case.send(3, 1)


async def too_many_wait(case: Case) -> None:
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    for value, images in ((2, 4), (3, 3), (4, 2), (5, 1)):
        await case.send(value, images)
    case.see_waiting()


async def closed_twice(case: Case) -> None:
    await case.queue.start()
    await case.send(1, 1)
    await case.engine.entered()
    closing = [await case.begin_to_close(), await case.begin_to_close()]
    await case.send(2, 1)
    case.engine.release()
    await asyncio.gather(*closing)


async def closed_while_idle(case: Case) -> None:
    await case.queue.start()
    case.engine.release()
    await (await case.send(1, 1))
    await asyncio.sleep(0.05)  # the engine's thread waits for a request by now, usually
    await case.queue.close()


async def closed_before_start(case: Case) -> None:
    await case.queue.close()
    await case.send(1, 1)


async def started_after_close(case: Case) -> None:
    await case.queue.close()
    await case.queue.start()
    await case.send(1, 1)


async def sent_before_start(case: Case) -> None:
    await case.send(1, 1)
    await case.queue.start()
    await case.send(2, 1)


async def sent_in_warm_up(case: Case) -> None:
    case.engine.warm_up_waits = True
    starting = asyncio.create_task(case.queue.start())
    await case.engine.entered()
    await case.send(1, 1)
    case.engine.release(100)
    await starting
    await case.send(2, 1)


async def start_cancelled(case: Case) -> None:
    """Stop waiting for the warm-up, as the server does at a signal, then close."""
    case.engine.warm_up_waits = True
    starting = asyncio.create_task(case.queue.start())
    await case.engine.entered()
    starting.cancel()
    await asyncio.wait({starting})


CASES: tuple[Callable[[Case], Awaitable[None]], ...] = (
    batched_in_order,
    closed_while_postponed,
    closed_before_it_is_postponed,
    postponed_and_cancelled,
    cancelled,
    only_cancelled_ones_are_left,
    cancelled_in_its_run,
    failed_run,
    too_many_wait,
    closed_twice,
    closed_while_idle,
    closed_before_start,
    started_after_close,
    sent_before_start,
    sent_in_warm_up,
    start_cancelled,
)


async def main() -> None:
    outcomes: dict[str, object] = {}
    for play in CASES:
        name = play.__name__
        case = Case(name)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await play(case)
                outcomes[name] = await case.outcome()
        except Exception as error:
            outcomes[name] = f"{type(error).__name__}: {error}"
            case.engine.release(100)
    print(json.dumps(outcomes), flush=True)
    os._exit(0)  # a thread that a defect blocks would keep the process from ending


if __name__ == "__main__":
    asyncio.run(main())
