"""Counters of the machine, and the contention between two readings."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.contention import (
    CpuTimes,
    contention,
    process_tree_seconds,
    read_cpu_times,
    watch_start,
)
from ccr_deploy.benchmarking.results import Contention
from tests.support.busy import busy_machine

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

BEFORE = CpuTimes(at=100.0, cores=2, busy=50.0, own=10.0, stolen=1.0, throttled=3.0)


def test_the_time_of_others_is_the_busy_time_without_own_time() -> None:
    after = CpuTimes(at=110.0, cores=2, busy=69.0, own=16.0, stolen=3.0, throttled=3.5)
    assert contention("chain", BEFORE, after) == Contention("chain", 10.0, 2, 1.3, 0.2, 0.05)


def test_rounding_of_clocks_gives_no_negative_cores() -> None:
    after = replace(BEFORE, at=110.0, busy=69.9, own=30.0)
    assert contention("encoder", BEFORE, after).other_processes_cores == 0


def test_a_counter_missing_in_one_reading_is_unknown() -> None:
    after = CpuTimes(at=110.0, cores=2, busy=None, own=None, stolen=None, throttled=None)
    assert contention("encoder", BEFORE, after) == Contention("encoder", 10.0, 2, None, None, None)


def test_a_system_without_counters_is_read_as_unknown(tmp_path: Path) -> None:
    read = read_cpu_times(tmp_path)
    assert (read.busy, read.own, read.stolen, read.throttled) == (None, None, None, None)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\nintr 0\n")  # no core of its own
    assert read_cpu_times(tmp_path).busy is None


def test_only_the_counters_of_usable_cores_and_own_groups_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "sys" / "fs" / "cgroup" / "job"
    for folder in (tmp_path / "proc" / "self", own):
        folder.mkdir(parents=True)
    (tmp_path / "proc" / "stat").write_text(
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 20 30 4000 500 6 7 80 0 0\ncpu1 7 7 7 7 7 7 7 7 0 0\n"
        "cpu10 1 1 1 1 1 1 1 1 0 0\nintr 1 2 3\n"
    )
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/job\n")
    (own.parent / "cgroup.controllers").write_text("cpu memory\n")
    (own / "cpu.stat").write_text("usage_usec 5\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2500000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 10})
    read = read_cpu_times(tmp_path)
    second = os.sysconf("SC_CLK_TCK")
    assert read.cores == 2
    assert (read.busy, read.stolen) == ((163 + 5) / second, 81 / second)
    assert read.throttled == 2.5


_COMPUTE_HALF_A_SECOND = """
import sys, time
while time.process_time() < 0.5:
    pass
print("done", flush=True)
sys.stdin.read()
"""
_IN_A_GRANDCHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"


def test_a_trees_time_includes_grandchildren_living_and_reaped() -> None:
    """CPU time, not the clock: it takes as long as the machine needs."""
    command = [sys.executable, "-c", _IN_A_GRANDCHILD, _COMPUTE_HALF_A_SECOND]
    before = process_tree_seconds(os.getpid())
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        assert process_tree_seconds(child.pid) >= 0.45
        assert process_tree_seconds(os.getpid()) - before >= 0.45
    assert process_tree_seconds(os.getpid()) - before >= 0.45


def test_another_process_tree_is_not_counted_as_own() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as idle,
        busy_machine(),
    ):
        before = process_tree_seconds(idle.pid)
        watch_start()
        assert process_tree_seconds(idle.pid) - before < 0.4
        idle.communicate(b"\n")
