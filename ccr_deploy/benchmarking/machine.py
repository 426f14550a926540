"""The machine's state, without which a time says little."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from ccr_deploy.backends.base import thread_count
from ccr_deploy.backends.processor import processor_name
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.gpu import find_gpu

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPU_TIMES = Path("/proc/stat")
_WATCHED_SECONDS = 0.5


def machine_state(*, with_gpu: bool = False) -> MachineState:
    """What this machine is, and how busy it is now.

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
        cpu_busy_percent=_cpu_busy_percent(),
        frequency_governor=_GOVERNOR.read_text().strip() if _GOVERNOR.exists() else None,
        gpu=str(gpu) if gpu else None,
        gpu_driver=gpu.driver if gpu else None,
    )


def _cpu_busy_percent() -> float | None:
    """The share of all cores' time that was not idle while this process slept; None without /proc."""
    if not _CPU_TIMES.exists():
        return None
    before = _cpu_times()
    time.sleep(_WATCHED_SECONDS)
    spent = [after - start for start, after in zip(before, _cpu_times(), strict=True)]
    idle = spent[3] + spent[4]  # idle, and waiting for the disk
    return round(100 * (1 - idle / max(1, sum(spent))), 1)


def _cpu_times() -> list[int]:
    """Clock ticks of all cores: user, nice, system, idle, iowait, irq, softirq, steal."""
    first_line = _CPU_TIMES.read_text(encoding="ascii").splitlines()[0]
    return [int(ticks) for ticks in first_line.split()[1:9]]
