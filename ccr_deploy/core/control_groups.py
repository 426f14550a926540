"""Limits that a Linux control group (cgroup), such as a container's, sets on processor time and memory."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 2**60
"""Cgroup v1 reports "no limit" as the largest multiple of the page size that fits 63 bits."""


def quota_cores(root: Path = ROOT) -> int | None:
    """Return the processor quota in cores, rounded up; None if there is no quota.

    Cgroup v2 has quota and period, in microseconds, in one file; the quota is ``max`` if it is unlimited.
    Cgroup v1 has one file for each; the quota is -1 if there is none.
    """
    quota_1, period_1 = _words(root / "cpu" / "cpu.cfs_quota_us"), _words(root / "cpu" / "cpu.cfs_period_us")
    words = _words(root / "cpu.max") or quota_1 + period_1
    if len(words) != 2 or not all(word.isdigit() for word in words) or "0" in words:
        return None
    quota, period = map(int, words)
    return max(1, -(-quota // period))  # the negations round up


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the memory limit in bytes; None if there is no limit."""
    words = _words(root / "memory.max") or _words(root / "memory" / "memory.limit_in_bytes")
    if len(words) != 1 or not words[0].isdigit():
        return None
    limit = int(words[0])
    return limit if limit < _UNLIMITED_BYTES else None


def group_folders(controller: str, root: Path = Path("/")) -> list[Path]:
    """Return the folders of this process's control group for a controller, then those of its parents.

    Each of them may limit the process. In a container, the group's own folder is usually the mount point.

    Args:
        controller: name of the controller in cgroup v1: ``cpu`` or ``memory``; v2 has one group for all.
        root: the root of the file system.
    """
    mount = root / "sys" / "fs" / "cgroup"
    groups = [
        line.split(":", 2) for line in _lines(root / "proc" / "self" / "cgroup") if line.count(":") >= 2
    ]
    is_v2 = (mount / "cgroup.controllers").exists()
    # A line is ID:CONTROLLERS:PATH; the one of v2 names no controllers.
    paths = [path for _, names, path in groups if (names == "" and is_v2) or controller in names.split(",")]
    base = mount if is_v2 else mount / controller
    found = [base / path.strip("/") for path in paths[:1]] or [base]
    while found[-1] != base and base in found[-1].parents:
        found.append(found[-1].parent)
    return [folder for folder in found if folder.is_dir()]


def cpu_limit_cores(root: Path = Path("/")) -> float | None:
    """Return the smallest processor quota of this process's control groups, in cores; None without one.

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


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the smallest memory limit of this process's control groups in bytes; None without one.

    Args:
        root: the root of the file system.
    """
    words = [
        _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        for folder in group_folders("memory", root)
    ]
    limits = [int(found[0]) for found in words if len(found) == 1 and found[0].isdigit()]
    return min((limit for limit in limits if limit < _UNLIMITED_BYTES), default=None)


def memory_in_use(status: Path = Path("/proc/self/status")) -> int:
    """Return this process's anonymous memory in bytes; 0 if the system does not report it.

    Pages of mapped files do not count: the kernel can reclaim them.
    """
    words = _words(status)
    return int(words[words.index("RssAnon:") + 1]) * 1024 if "RssAnon:" in words else 0


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
