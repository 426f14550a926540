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


def test_the_last_level_cache_is_the_largest_one(tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "1024K", "32768K", "?")):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "size").write_text(f"{size}\n")
    assert last_level_cache_bytes(tmp_path) == 2**25
    assert last_level_cache_bytes(tmp_path / "none") is None
