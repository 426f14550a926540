"""What keeps cores from a benchmark: other processes, the hypervisor, a container's CPU limit.

All three are counted in cores, CPU seconds a second, over the cores that this process may use.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.results import Contention

if TYPE_CHECKING:
    from collections.abc import Collection

    from ccr_deploy.benchmarking.results import Phase

_PROCESSES = Path("/proc")
_CGROUP_STATISTICS = Path("/sys/fs/cgroup/cpu.stat")
"""Linux's second version of control groups, as a container sees its own."""
_START_SECONDS = 0.5
_PARENT, _TIMES = 1, slice(11, 15)
"""Where ``/proc/PID/stat`` has them behind the command's name: user, system, and both of reaped children."""


@dataclass(frozen=True)
class CpuTimes:
    """Counters at one moment, in seconds; None where the system does not tell.

    `busy` is what anybody computed on `cores` cores, `own` what this process and its descendants did.
    `stolen` is what the hypervisor gave to other guests, `throttled` what a CPU limit kept from a container.
    """

    at: float
    cores: int
    busy: float | None
    own: float | None
    stolen: float | None
    throttled: float | None


def read_cpu_times() -> CpuTimes:
    """Read the counters as they are now."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    busy, stolen = _read_system_times(usable)
    return CpuTimes(
        at=time.monotonic(),
        cores=len(usable),
        busy=busy,
        own=None if busy is None else process_tree_seconds(os.getpid()),
        stolen=stolen,
        throttled=_read_throttled_seconds(),
    )


def watch_start() -> Contention:
    """Return what others use while this process sleeps for half a second."""
    before = read_cpu_times()
    time.sleep(_START_SECONDS)
    return contention("start", before, read_cpu_times())


def contention(phase: Phase, before: CpuTimes, after: CpuTimes) -> Contention:
    """Return what kept cores from this process between two readings.

    Args:
        phase: what was going on between them.
        before: the first reading.
        after: the second reading.
    """
    seconds = after.at - before.at

    def rate(first: float | None, second: float | None, own: float = 0) -> float | None:
        if first is None or second is None:
            return None
        # The kernel may count cores in ticks and processes exactly, so that the difference falls below 0.
        return round(max(0.0, second - first - own) / seconds, 3)

    own = None if before.own is None or after.own is None else after.own - before.own
    return Contention(
        phase=phase,
        seconds=round(seconds, 3),
        cores=after.cores,
        other_processes_cores=None if own is None else rate(before.busy, after.busy, own),
        stolen_cores=rate(before.stolen, after.stolen),
        throttled_cores=rate(before.throttled, after.throttled),
    )


def process_tree_seconds(root: int) -> float:
    """Return the CPU seconds that the process `root` and all its descendants have used."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in _PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile: its parent has its ticks
            line = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            fields = line.rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[_PARENT])
            ticks[int(folder.name)] = sum(map(int, fields[_TIMES]))

    def descends(process: int | None) -> bool:
        while process and process != root:
            process = parents.get(process)
        return process == root

    return sum(ticks[process] for process in ticks if descends(process)) / os.sysconf("SC_CLK_TCK")


def _read_system_times(usable: Collection[int]) -> tuple[float | None, float | None]:
    """Busy and stolen seconds of the usable cores."""
    names = {f"cpu{number}" for number in usable}
    lines = (line.split() for line in _lines(_PROCESSES / "stat"))
    rows = [[int(ticks) for ticks in line[1:9]] for line in lines if line[0] in names]
    if not rows:  # some sandboxes count nothing by core
        return None, None
    second = os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, waiting for the disk, interrupts, soft interrupts, stolen
    return sum(sum(row[:3]) + sum(row[5:7]) for row in rows) / second, sum(row[7] for row in rows) / second


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _read_throttled_seconds() -> float | None:
    counters = dict(line.split() for line in _lines(_CGROUP_STATISTICS))
    return int(counters["throttled_usec"]) / 1e6 if "throttled_usec" in counters else None
