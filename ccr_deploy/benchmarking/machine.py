"""The machine's state, without which a time says little."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from ccr_deploy.backends.base import processor_name, thread_count
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.target import Options

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def machine_state() -> MachineState:
    """What this machine is, and how busy it is now."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return MachineState(
        processor=processor_name(),
        usable_cores=thread_count(Options()),
        memory_gib=round(memory / 2**30, 1),
        operating_system=platform.platform(terse=True),
        python=platform.python_version(),
        load_average_1min=round(os.getloadavg()[0], 2),
        frequency_governor=_GOVERNOR.read_text().strip() if _GOVERNOR.exists() else None,
    )
