"""How many threads a process may use."""

from __future__ import annotations

import os

from ccr_deploy.core.control_groups import quota_cores


def thread_count(threads: int = 0) -> int:
    """Return the number of `threads`, of which 0 are as many as the process may use.

    A container's limit counts: more threads than it allows are only stopped again and again.
    """
    if threads:
        return threads
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, quota_cores() or usable)
