"""The state of the machine during a benchmark."""

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
    """Return the state of this machine, with the contention at the start.

    Args:
        with_gpu: whether to include the GPU.
        start: contention that was measured before; None to measure it now.

    Raises:
        EngineError: if `with_gpu` is set and there is no GPU.
        MissingExtraError: if `with_gpu` is set and the package that finds GPUs is not installed.
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
    """Return the share of all cores that others used at the start; None without counters in /proc."""
    if start.other_processes_cores is None:
        return None
    return round(100 * (start.other_processes_cores + (start.stolen_cores or 0)) / start.cores, 1)
