"""Contention: CPU time that other processes, the hypervisor or a container's CPU limit took from a benchmark.

All three are given in cores (CPU seconds per second), over the cores that this process may use.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.environment import usable_cores
from ccr_deploy.benchmarking.results import Contention
from ccr_deploy.core.control_groups import ROOT, read_lines, throttled_seconds

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from ccr_deploy.benchmarking.results import Phase

_START_SECONDS = 0.5
"""How long the machine is observed before the start; the kernel counts CPU time in steps of 10 ms."""
_PARENT, _TIMES = 1, slice(11, 15)
"""Fields of ``/proc/PID/stat`` after the command name; times: user and system, own and of reaped children."""


@dataclass(frozen=True)
class CpuTimes:
    """CPU time counters at one moment, in seconds; None if the system does not provide them.

    `busy` is the time used by all processes on `cores` cores, `own` by this process and its descendants.
    `stolen` is the time that the hypervisor gave to other guests, `throttled` the time that the CPU limits of
    this process's control groups withheld.
    """

    at: float
    cores: int
    busy: float | None
    own: float | None
    stolen: float | None
    throttled: float | None

    @property
    def others(self) -> float | None:
        """The time used by other processes."""
        return None if self.busy is None or self.own is None else self.busy - self.own


def read_cpu_times(root: Path = ROOT) -> CpuTimes:
    """Read the current counters.

    Args:
        root: the root of the file system.
    """
    usable = usable_cores()
    busy, stolen = _read_system_times(usable, root)
    return CpuTimes(
        at=time.monotonic(),
        cores=len(usable),
        busy=busy,
        own=None if busy is None else process_tree_seconds(os.getpid(), root),
        stolen=stolen,
        throttled=throttled_seconds(root),
    )


def watch_start() -> Contention:
    """Return the contention while this process sleeps for half a second."""
    before = read_cpu_times()
    time.sleep(_START_SECONDS)
    return contention("start", before, read_cpu_times())


def contention(phase: Phase, before: CpuTimes, after: CpuTimes) -> Contention:
    """Return the contention between two readings of the counters.

    Args:
        phase: phase of the benchmark between the readings.
        before: first reading.
        after: second reading.
    """
    seconds = after.at - before.at

    def cores_used(first: float | None, second: float | None) -> float | None:
        if first is None or second is None:
            return None
        # The kernel may count cores in ticks but processes exactly, so the difference may be negative.
        return round(max(0.0, second - first) / seconds, 3)

    return Contention(
        phase=phase,
        seconds=round(seconds, 3),
        cores=after.cores,
        other_processes_cores=cores_used(before.others, after.others),
        stolen_cores=cores_used(before.stolen, after.stolen),
        throttled_cores=cores_used(before.throttled, after.throttled),
    )


def process_tree_seconds(ancestor: int, root: Path = ROOT) -> float:
    """Return the CPU seconds that a process and all its descendants have used.

    Args:
        ancestor: the id of the process.
        root: the root of the file system.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in (root / "proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process ended: its parent has its ticks
            line = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            fields = line.rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[_PARENT])
            ticks[int(folder.name)] = sum(map(int, fields[_TIMES]))

    def descends(process: int | None) -> bool:
        while process and process != ancestor:
            process = parents.get(process)
        return process == ancestor

    return sum(ticks[process] for process in ticks if descends(process)) / os.sysconf("SC_CLK_TCK")


def _read_system_times(usable: Collection[int], root: Path) -> tuple[float | None, float | None]:
    """Return the busy and stolen seconds of the usable cores, or None if the system does not count them."""
    names = {f"cpu{number}" for number in usable}
    lines = (line.split() for line in read_lines(root / "proc" / "stat"))
    rows = [[int(ticks) for ticks in line[1:9]] for line in lines if line[0] in names]
    if not rows:  # some sandboxes have no counters per core
        return None, None
    second = os.sysconf("SC_CLK_TCK")
    # Fields: user, nice, system, idle, iowait, irq, softirq, steal.
    return sum(sum(row[:3]) + sum(row[5:7]) for row in rows) / second, sum(row[7] for row in rows) / second
