"""How a limit of the machine is measured, with times and caches as inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.benchmarking.limit_measurements import array_bytes, best_seconds, last_level_cache_bytes

if TYPE_CHECKING:
    from pathlib import Path


def test_the_shortest_run_counts_but_not_the_first_one() -> None:
    seconds = iter([0.1, 0.5])
    assert best_seconds(lambda: next(seconds), 0) == 0.5


@pytest.mark.parametrize(
    ("cache", "limit", "expected"),
    [
        (None, None, 2**26),
        (2**20, None, 2**26),
        (2**25, None, 2**27),  # STREAM: at least four times the cache
        (2**32, None, 2**30),
        (2**25, 2**28, 2**25),  # a container's limit
    ],
)
def test_arrays_exceed_the_cache_within_the_limits(
    cache: int | None, limit: int | None, expected: int
) -> None:
    assert array_bytes(cache, limit) == expected


def plant_caches(root: Path, core: int, sizes: tuple[str, ...], shared: str) -> None:
    for index, size in enumerate(sizes):
        folder = root / f"sys/devices/system/cpu/cpu{core}/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")
        (folder / "shared_cpu_list").write_text(f"{shared}\n")


def test_the_last_level_cache_is_the_largest_one(tmp_path: Path) -> None:
    plant_caches(tmp_path, 0, ("32K", "1024K", "32768K", "?"), "0")
    assert last_level_cache_bytes([0], tmp_path) == 2**25
    assert last_level_cache_bytes([0], tmp_path / "none") is None
    assert last_level_cache_bytes([7], tmp_path) is None


def test_the_last_level_caches_of_the_usable_processors_are_added(tmp_path: Path) -> None:
    for core in range(16):
        plant_caches(tmp_path, core, ("32K", "32768K"), "0-3" if core < 4 else f"{core // 4 * 4}-15")
    assert last_level_cache_bytes(range(16), tmp_path) == 4 * 2**25
    assert last_level_cache_bytes([1, 2, 5], tmp_path) == 2 * 2**25
