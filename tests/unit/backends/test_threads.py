"""The number of threads of an engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.backends.threads import thread_count

if TYPE_CHECKING:
    from pathlib import Path


def test_a_given_number_of_threads_is_used() -> None:
    assert thread_count(3) == 3


def test_by_default_all_usable_processors_are_used() -> None:
    assert 1 <= thread_count() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("quota", "threads"), [("5000 100000", 1), ("150000 100000", 2), ("max 100000", 4)])
def test_a_quota_counts_rounded_up(
    quota: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    groups = tmp_path / "sys" / "fs" / "cgroup"
    groups.mkdir(parents=True)
    (groups / "cgroup.controllers").write_text("cpu\n")
    (groups / "cpu.max").write_text(f"{quota}\n")
    assert thread_count(root=tmp_path) == threads
