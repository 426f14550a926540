"""The number of threads that an engine may use."""

from __future__ import annotations

import os

from ccr_deploy.core.control_groups import quota_cores


def thread_count(threads: int = 0) -> int:
    """Return the number of threads to use; 0 means all processors that the process may use.

    The CPU limit of a container counts: the kernel throttles a process that runs more threads than its quota.
    """
    if threads:
        return threads
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, quota_cores() or usable)
