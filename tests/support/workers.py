"""Pytest plugin: the number of parallel workers, their cores, and data that they share."""

from __future__ import annotations

import gc
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

OBJECTS_UNTIL_SEARCH = 10_000
"""New objects until the garbage collector searches them for cycles; Python's own value is 700."""
WORKER_GIB = 4
"""Memory for one worker: 2 GiB as a rule, 4.7 during the largest export (measured)."""


def pytest_xdist_auto_num_workers() -> int:
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return worker_count(thread_count(), memory_gib)


def worker_count(cores: int, memory_gib: float) -> int:
    """Return the number of workers: one per core, limited by memory."""
    return max(1, min(cores, int(memory_gib / WORKER_GIB)))


def pytest_configure(config: pytest.Config) -> None:
    """Search for cycles seldom, and give each worker, and the processes that it starts, cores of its own.

    An export creates many objects, and each full search visits the 700,000 of the imported libraries.

    Libraries start as many threads as they see cores. On cores that are shared with other workers, threads
    wait for each other: in the demo's training, two threads took ten times the processor time of one
    (measured).
    """
    gc.set_threshold(OBJECTS_UNTIL_SEARCH)
    if hasattr(config, "workerinput") and hasattr(os, "sched_setaffinity"):
        number = int(config.workerinput["workerid"].removeprefix("gw"))
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, share(cores, number, config.workerinput["workercount"]))


def share(cores: Sequence[int], number: int, workers: int) -> Sequence[int]:
    """Return the cores of one worker: at least one, and no core twice if there are enough.

    Args:
        cores: the cores of all workers together.
        number: the worker's number, from 0.
        workers: the number of workers.
    """
    return cores[number % len(cores) :: workers]


class Shared:
    """Data that the first worker to need it makes, and that all workers read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def locked_folder(self, name: str) -> Iterator[Path]:
        """Create and lock a folder, so that one worker at a time uses it."""
        folder = self._root / name
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            yield folder

    def made_once(self, name: str, make: Callable[[Path], Made]) -> Made:
        """Return a copy of the result of `make`, which is called once, with a folder of that name."""
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
