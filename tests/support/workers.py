"""A pytest plugin: how many parallel workers there are, what each may use, and what they share."""

from __future__ import annotations

import os
import pickle
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from ccr_deploy.backends.threads import thread_count
from ccr_deploy.core.atomic import folder_lock, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

Made = TypeVar("Made")

WORKER_GIB = 4
"""Memory for one worker: 2 GiB as a rule, 4.7 during the largest export (measured)."""


def pytest_xdist_auto_num_workers() -> int:
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return worker_count(thread_count(), memory_gib)


def worker_count(cores: int, memory_gib: float) -> int:
    """Return one worker for each core, as far as memory goes."""
    return max(1, min(cores, int(memory_gib / WORKER_GIB)))


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker, and what it starts, cores of its own.

    Libraries take as many threads as they see cores. On cores that other workers use as well, threads wait
    for each other: two threads took ten times the processor time of one (measured, the demo's training).
    """
    if hasattr(config, "workerinput") and hasattr(os, "sched_setaffinity"):
        number = int(config.workerinput["workerid"].removeprefix("gw"))
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, share(cores, number, config.workerinput["workercount"]))


def share(cores: Sequence[int], number: int, workers: int) -> Sequence[int]:
    """Return the cores of one worker: at least one, its own as far as there are enough.

    Args:
        cores: All that the workers may use together.
        number: Which worker it is, from 0.
        workers: How many there are.
    """
    return cores[number % len(cores) :: workers]


class Shared:
    """What the first worker that needs it makes, and all workers read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def locked_folder(self, name: str) -> Iterator[Path]:
        """Hold a folder that one worker at a time may have."""
        folder = self._root / name
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            yield folder

    def made_once(self, name: str, make: Callable[[Path], Made]) -> Made:
        """Return a copy of what `make` returned, which is called once with a folder of that name."""
        with self.locked_folder(name) as folder:
            made = folder / "made.pickle"
            if not made.exists():
                write_atomically(made, pickle.dumps(make(folder)))
            found: Made = pickle.loads(made.read_bytes())
        return found


@pytest.fixture(scope="session")
def shared(worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    base = tmp_path_factory.getbasetemp()
    return Shared((base if worker_id == "master" else base.parent) / "shared")
