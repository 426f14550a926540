"""The control groups (cgroups) of this process, such as a container's: their limits of processor and memory.

All readers take the root folder of the file system. They read the process's own group and all groups above
it, because each of them may limit the process, in version 2 (one tree) or 1 (a tree for each controller).
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")
_UNLIMITED_BYTES = 2**60
"""Cgroup v1 reports "no limit" as the largest multiple of the page size that fits 63 bits."""


def cpu_limit_cores(root: Path = ROOT) -> float | None:
    """Return the smallest processor quota of this process's groups, in cores; None without one.

    Cgroup v2 has quota and period, in microseconds, in one file; the quota is ``max`` if it is unlimited.
    Cgroup v1 has one file for each; the quota is -1 if there is none.

    Args:
        root: the root of the file system.
    """
    quotas = [
        _words(folder / "cpu.max")
        or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        for folder in group_folders("cpu", root)
    ]
    cores = [
        int(words[0]) / int(words[1])
        for words in quotas
        if len(words) == 2 and all(word.isdigit() for word in words) and "0" not in words
    ]
    return min(cores, default=None)


def throttled_seconds(root: Path = ROOT) -> float | None:
    """Return for how long processor quotas have withheld time from this process's groups, in seconds.

    Each group counts what its own quota withheld, so that the counters are added.

    Args:
        root: the root of the file system.

    Returns:
        None if no group counts it: a group without a quota, or the root group.
    """
    counters = [_counters(folder / "cpu.stat") for folder in group_folders("cpu", root)]
    found = [
        counter[name] / per_second
        for counter in counters
        for name, per_second in (("throttled_usec", 1e6), ("throttled_time", 1e9))  # of v2, of v1
        if name in counter
    ]
    return sum(found) if found else None


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """Return the smallest memory limit of this process's groups, in bytes; None without one.

    Args:
        root: the root of the file system.
    """
    words = [
        _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        for folder in group_folders("memory", root)
    ]
    limits = [int(found[0]) for found in words if len(found) == 1 and found[0].isdigit()]
    return min((limit for limit in limits if limit < _UNLIMITED_BYTES), default=None)


def group_folders(controller: str, root: Path = ROOT) -> list[Path]:
    """Return the folders of this process's group for a controller, then those of the groups above it.

    In a container, the group's own folder is usually the mount point.

    Args:
        controller: name of the controller in cgroup v1: ``cpu`` or ``memory``; v2 has one group for all.
        root: the root of the file system.
    """
    mount = root / "sys" / "fs" / "cgroup"
    groups = [
        line.split(":", 2) for line in read_lines(root / "proc" / "self" / "cgroup") if line.count(":") >= 2
    ]
    is_v2 = (mount / "cgroup.controllers").exists()
    # A line is ID:CONTROLLERS:PATH; the one of v2 names no controllers.
    own = [
        (names, path)
        for _, names, path in groups
        if (names == "" and is_v2) or controller in names.split(",")
    ]
    base = mount if is_v2 else mount / controller
    if own and not base.is_dir():  # v1 mounted as cpu,cpuacct, without a link named cpu
        base = mount / own[0][0]
    found = [base / path.strip("/") for _, path in own[:1]] or [base]
    while found[-1] != base and base in found[-1].parents:
        found.append(found[-1].parent)
    return [folder for folder in found if folder.is_dir()]


def memory_in_use(status: Path = Path("/proc/self/status")) -> int:
    """Return this process's anonymous memory in bytes; 0 if the system does not report it.

    Pages of mapped files do not count: the kernel can reclaim them.
    """
    words = _words(status)
    return int(words[words.index("RssAnon:") + 1]) * 1024 if "RssAnon:" in words else 0


def _counters(file: Path) -> dict[str, int]:
    """Return the counters in a file, one in a line: a name and a number."""
    pairs = (line.split() for line in read_lines(file))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _words(file: Path) -> list[str]:
    return " ".join(read_lines(file)).split()


def read_lines(file: Path) -> list[str]:
    """Return the lines of a file of the kernel; none if it cannot be read."""
    try:
        return file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
