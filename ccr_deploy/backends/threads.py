"""The number of threads that an engine may use."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from ccr_deploy.core.control_groups import ROOT, cpu_limit_cores

if TYPE_CHECKING:
    from pathlib import Path


def thread_count(threads: int = 0, root: Path = ROOT) -> int:
    """Return the number of threads to use.

    The CPU limit of a container counts: the kernel throttles a process that runs more threads than its quota.

    Args:
        threads: the requested number; 0 for all processors that the process may use.
        root: the root of the file system.
    """
    if threads:
        return threads
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cpu_limit_cores(root)
    return usable if limit is None else min(usable, math.ceil(limit))
