"""What a control group, in a container its own, allows this process: processor time and memory."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 2**60
"""Version 1 says "no limit" by the largest multiple of a page that fits 63 bits."""


def quota_cores(root: Path = ROOT) -> int | None:
    """Return the cores that the quota of processor time amounts to, rounded up; None if there is no quota.

    Version 2 writes microseconds of the quota, or ``max``, and of the period that it is for into one file,
    version 1 into a file each, with -1 for no quota.
    """
    quota_1, period_1 = _words(root / "cpu" / "cpu.cfs_quota_us"), _words(root / "cpu" / "cpu.cfs_period_us")
    words = _words(root / "cpu.max") or quota_1 + period_1
    if len(words) != 2 or not all(word.isdigit() for word in words) or "0" in words:
        return None
    quota, period = map(int, words)
    return max(1, -(-quota // period))


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the most memory in bytes; None if there is no limit."""
    words = _words(root / "memory.max") or _words(root / "memory" / "memory.limit_in_bytes")
    if len(words) != 1 or not words[0].isdigit():
        return None
    limit = int(words[0])
    return limit if limit < _UNLIMITED_BYTES else None


def memory_in_use(status: Path = Path("/proc/self/status")) -> int:
    """Return the bytes of this process that the kernel cannot take back, as it can those of mapped files.

    0 if the system does not tell, as others than Linux.
    """
    words = _words(status)
    return int(words[words.index("RssAnon:") + 1]) * 1024 if "RssAnon:" in words else 0


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []
