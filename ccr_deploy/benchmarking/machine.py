"""The machine's state, without which a time says little."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.processor import processor_name

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.results import Contention

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def machine_state(*, with_gpu: bool = False, start: Contention | None = None) -> MachineState:
    """What this machine is, and how busy it is now, or was when it was watched just before.

    Raises:
        EngineError, MissingExtraError: the GPU is wanted, and there is none, or nobody can look for one.
    """
    gpu = find_gpu() if with_gpu else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return MachineState(
        processor=processor_name(),
        usable_cores=thread_count(),
        memory_gib=round(memory / 2**30, 1),
        operating_system=platform.platform(terse=True),
        python=platform.python_version(),
        cpu_busy_percent=_busy_percent(start or watch_start()),
        frequency_governor=_GOVERNOR.read_text().strip() if _GOVERNOR.exists() else None,
        gpu=str(gpu) if gpu else None,
        gpu_driver=gpu.driver if gpu else None,
    )


def _busy_percent(start: Contention) -> float | None:
    """The share of all cores' time that others took while this process slept; None without /proc."""
    if start.other_processes_cores is None:
        return None
    return round(100 * (start.other_processes_cores + (start.stolen_cores or 0)) / start.cores, 1)
