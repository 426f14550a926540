"""Parallel workers: their number, their cores, and the data that they share."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.workers import Shared, share, worker_count

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("cores", "memory_gib", "workers"), [(1, 2, 1), (2, 8, 2), (2, 64, 2), (16, 15.6, 3), (16, 64, 16)]
)
def test_there_is_one_worker_per_core_limited_by_memory(cores: int, memory_gib: float, workers: int) -> None:
    assert worker_count(cores, memory_gib) == workers


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_each_core_is_given_to_one_worker(workers: int) -> None:
    cores = [0, 2, 5, 7]
    shares = [share(cores, number, workers) for number in range(workers)]
    assert sorted(core for mine in shares for core in mine) == cores
    assert all(len(mine) >= 4 // workers for mine in shares)


def test_more_workers_than_cores_get_one_core_each() -> None:
    assert [share([3, 4], number, 5) for number in range(5)] == [[3], [4], [3], [4], [3]]


def test_shared_data_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []
    together = threading.Barrier(4)

    def make(folder: Path) -> dict[str, Path]:
        made.append(1)
        time.sleep(0.1)
        (folder / "file").write_text("content")
        return {"folder": folder}

    def need(_: int) -> str:
        together.wait()
        return (Shared(tmp_path / "shared").made_once("it", make)["folder"] / "file").read_text()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(need, range(4))) == ["content"] * 4
    assert made == [1]


def test_shared_data_is_made_again_after_a_failure(tmp_path: Path) -> None:
    shared = Shared(tmp_path)
    with pytest.raises(ZeroDivisionError):
        shared.made_once("it", lambda _: 1 // 0)
    assert shared.made_once("it", lambda _: 7) == 7
    assert shared.made_once("it", lambda _: 8) == 7
    assert shared.made_once("other", lambda _: 8) == 8
