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


def memory_in_use(status: Path = Path("/proc/self/status")) -> int:
    """Return this process's anonymous memory in bytes; 0 if the system does not report it.

    Pages of mapped files do not count: the kernel can reclaim them.
    """
    words = _words(status)
    return int(words[words.index("RssAnon:") + 1]) * 1024 if "RssAnon:" in words else 0


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []
