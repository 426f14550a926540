"""A server that would run out of memory says so while it warms up, and how much it needs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.backends.base import TensorSpec
from ccr_deploy.control_groups import memory_in_use
from ccr_deploy.errors import EngineError
from ccr_deploy.serving.engine_queue import EngineQueue
from ccr_deploy.serving.limits import Limits, check_growth

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 2**20


@pytest.mark.parametrize(
    ("held", "memory"),
    [
        ([300], 512),  # nothing is known of a step yet
        ([300, 370, 440], 512),
        ([300, 300, 300], 301),
        ([300, 400, 500, 600, 700, 800, 900, 1000], 1000),  # warmed up
        ([300, 900], None),
    ],
)
def test_what_has_room_goes_on(held: list[int], memory: int | None) -> None:
    check_growth("encoder", [used * MIB for used in held], Limits(8, 64, memory and memory * MIB))


@pytest.mark.parametrize(
    ("held", "need"),
    [([300, 370, 440, 510], 790), ([300, 450, 460], 1210), ([300, 513], 1791)],
)
def test_the_next_size_may_take_what_the_largest_step_took(held: list[int], need: int) -> None:
    message = (
        rf"^encoder: batches of {len(held)} leave no room for larger ones: {held[-1]} MiB are in use, and "
        rf"the memory limit is 512 MiB\. Batches of 8 need about {need} MiB: raise the limit, or serve with "
        r"a smaller --max-batch$"
    )
    with pytest.raises(EngineError, match=message):
        check_growth("encoder", [used * MIB for used in held], Limits(8, 64, 512 * MIB))


class Hoarder:
    """An engine that keeps 16 MiB for every batch that it ran."""

    inputs = (TensorSpec("image", "uint8", (None, 4)),)
    device_memory_mib = None

    def __init__(self) -> None:
        self.kept: list[object] = []

    def __enter__(self) -> Hoarder:
        return self

    def __exit__(self, *_: object) -> None:
        self.kept.clear()

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.kept.append(np.ones(16 * MIB, np.uint8))
        return {"code": feeds["image"]}


def test_a_warm_up_stops_before_memory_runs_out() -> None:
    async def start(memory: int) -> None:
        queue = EngineQueue("encoder", Hoarder, Limits(8, 64, memory))
        try:
            await queue.start()
        finally:
            await queue.close()

    asyncio.run(start(memory_in_use() + 512 * MIB))
    before = memory_in_use()
    with pytest.raises(EngineError, match="raise the limit"):
        asyncio.run(start(before + 80 * MIB))
