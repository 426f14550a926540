"""A server with too little memory fails during its warm-up, with an estimate of the memory that it needs."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from ccr_deploy.errors import EngineError
from ccr_deploy.serving.limits import Limits, check_growth

MIB = 2**20


@pytest.mark.parametrize(
    ("held", "memory"),
    [
        ([300], 512),  # nothing is known of a step yet
        ([300, 370], 512),
        ([300, 300, 300], 364),
        ([300, 400, 500, 600, 700, 800, 900, 1000], 1064),  # warmed up
        ([300, 900], None),
    ],
)
def test_warm_up_continues_if_memory_is_sufficient(held: list[int], memory: int | None) -> None:
    check_growth("encoder", [used * MIB for used in held], Limits(8, 64, memory and memory * MIB))


@pytest.mark.parametrize(
    ("held", "need"),
    [
        ([449], 513),
        ([300, 370, 440], 854),
        ([300, 400, 400], 714),
        ([300, 513], 1855),
        ([100, 100, 100, 100, 100, 100, 100, 449], 513),
    ],
)
def test_next_batch_size_is_estimated_from_the_growth(held: list[int], need: int) -> None:
    message = (
        rf"^encoder: {held[-1]} MiB are in use after warming up batch {len(held)}, and the memory limit is "
        rf"512 MiB; batches of 8 and waiting requests need about {need} MiB: raise the memory limit, or use "
        r"a smaller --max-batch$"
    )
    with pytest.raises(EngineError, match=message):
        check_growth("encoder", [used * MIB for used in held], Limits(8, 64, 512 * MIB))


# In a process of its own: KServe's SDK and Triton's client cannot be imported into one.
HOARDER = """
import asyncio
import numpy as np
from ccr_deploy.backends.runner import TensorSpec
from ccr_deploy.core.control_groups import memory_in_use
from ccr_deploy.errors import EngineError
from ccr_deploy.serving.engine_queue import EngineQueue
from ccr_deploy.serving.limits import Limits

MIB = 2**20

class Hoarder:
    "An engine that keeps 16 MiB for every batch that it ran."
    inputs = (TensorSpec("image", "uint8", (None, 4)),)
    kept = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kept.clear()

    def infer(self, feeds):
        self.kept.append(np.ones(16 * MIB, np.uint8))
        return {"code": feeds["image"]}

async def start(memory):
    queue = EngineQueue("encoder", Hoarder, Limits(8, 64, memory))
    try:
        await queue.start()
    finally:
        await queue.close()

asyncio.run(start(memory_in_use() + 512 * MIB))
Hoarder.kept.clear()
try:
    asyncio.run(start(memory_in_use() + 144 * MIB))
except EngineError as error:
    print(error)
"""


def test_a_warm_up_stops_before_memory_runs_out() -> None:
    ended = subprocess.run([sys.executable, "-c", HOARDER], capture_output=True, text=True, check=True)
    message = r"^encoder: \d+ MiB are in use after warming up batch [2-7], .* raise the memory limit"
    assert re.search(message, ended.stdout)
