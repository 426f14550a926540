"""Clock, temperature and power of the processor, from the files of the Linux kernel."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT = Path("/")
_PROCESSOR_ZONE = re.compile(r"cpu|pkg|soc|core|tdie|tctl", re.IGNORECASE)
"""Types of thermal zones and names of sensors that belong to a processor, not to a disk or a battery."""


@dataclass(frozen=True)
class CpuState:
    """The processor at one moment; None if the system does not provide a value.

    `energy_joules` is a counter of all packages (RAPL), which only root may read.
    """

    clock_mhz: float | None
    temperature_celsius: float | None
    energy_joules: float | None


def read_cpu(root: Path = _ROOT) -> CpuState:
    """Read all sensors below the root folder of the system."""
    return CpuState(_clock(root), _temperature(root), _energy(root))


def watts(before: CpuState, after: CpuState, seconds: float) -> float | None:
    """Return the mean power between two readings.

    Args:
        before: first reading.
        after: second reading.
        seconds: time between them.

    Returns:
        None without a counter, or if it wrapped around in between.
    """
    if (
        before.energy_joules is None
        or after.energy_joules is None
        or after.energy_joules < before.energy_joules
    ):
        return None
    return round((after.energy_joules - before.energy_joules) / seconds, 2)


def _clock(root: Path) -> float | None:
    """Return the mean clock of the usable cores."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    folder = root / "sys/devices/system/cpu"
    kilohertz = _numbers(folder / f"cpu{core}/cpufreq/scaling_cur_freq" for core in cores)
    if kilohertz:
        return round(sum(kilohertz) / len(kilohertz) / 1000, 1)
    # A virtual machine has no cpufreq, and some show the host's nominal clock here.
    found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return round(sum(map(float, found)) / len(found), 1) if found else None


def _temperature(root: Path) -> float | None:
    """Return the highest temperature of the processor's sensors."""
    zones = root.glob("sys/class/thermal/thermal_zone*")
    files = [zone / "temp" for zone in zones if _PROCESSOR_ZONE.search(_text(zone / "type"))]
    if not files:  # servers without ACPI zones have drivers such as coretemp and k10temp
        monitors = root.glob("sys/class/hwmon/hwmon*")
        named = [
            monitor for monitor in monitors if _text(monitor / "name").strip() in ("coretemp", "k10temp")
        ]
        files = [file for monitor in named for file in monitor.glob("temp*_input")]
    millidegrees = _numbers(files)
    return round(max(millidegrees) / 1000, 1) if millidegrees else None


def _energy(root: Path) -> float | None:
    """Return the energy of all packages; their cores and memory have folders below, which they include."""
    microjoules = _numbers(
        folder / "energy_uj"
        for folder in root.glob("sys/class/powercap/intel-rapl:*")
        if folder.name.count(":") == 1
    )
    return sum(microjoules) / 1e6 if microjoules else None


def _numbers(files: Iterable[Path]) -> list[int]:
    """Return the numbers in the files that can be read."""
    texts = (_text(file).strip() for file in files)
    return [int(text) for text in texts if text.lstrip("-").isdigit()]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not there, not readable for this user, or the sensor does not answer
        return ""
