"""The environment of a benchmark: what can change while it runs, read before and after.

All readers take the root of the file system, ``/``, and return None for what the system does not provide.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.results import Environment
from ccr_deploy.core.control_groups import cpu_limit_cores, memory_limit_bytes
from ccr_deploy.core.processor import instruction_sets, parse_flags

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

ROOT = Path("/")
_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "tensorrt", "tensorrt-rtx")
"""Distributions whose versions are recorded, if they are installed."""


def read_environment(driver: str | None = None, root: Path = ROOT) -> Environment:
    """Read the environment of this process.

    Args:
        driver: version of the GPU's driver; None without a GPU.
        root: the root of the file system.
    """
    cores = usable_cores()
    memory = memory_limit_bytes(root)
    clocks = clocks_mhz(cores, root)
    return Environment(
        affinity=cores,
        cpu_limit_cores=cpu_limit_cores(root),
        memory_limit_mib=None if memory is None else round(memory / 2**20),
        instruction_sets=instruction_sets(parse_flags(_lines(root / "proc" / "cpuinfo"))),
        frequency_governors=governors(cores, root),
        lowest_clock_mhz=min(clocks, default=None),
        highest_clock_mhz=max(clocks, default=None),
        temperatures_celsius=temperatures_celsius(root),
        versions={
            "python": platform.python_version(),
            "kernel": platform.release(),
            **_package_versions(),
            **({"driver": driver} if driver else {}),
        },
    )


def usable_cores() -> tuple[int, ...]:
    """Return the numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def clocks_mhz(cores: Collection[int], root: Path = ROOT) -> list[int]:
    """Return the current clocks of processors in MHz; empty if the system does not report them.

    A virtual machine often reports a constant.

    Args:
        cores: numbers of the processors.
        root: the root of the file system.
    """
    folder = root / "sys" / "devices" / "system" / "cpu"
    files = [folder / f"cpu{core}" / "cpufreq" / "scaling_cur_freq" for core in cores]
    found = [int(text) // 1000 for file in files if (text := _text(file)).isdigit()]
    return found or list(_cpuinfo_clocks(cores, _lines(root / "proc" / "cpuinfo")))


def governors(cores: Collection[int], root: Path = ROOT) -> tuple[str, ...]:
    """Return the different clock governors of processors.

    Args:
        cores: numbers of the processors.
        root: the root of the file system.
    """
    folder = root / "sys" / "devices" / "system" / "cpu"
    names = [_text(folder / f"cpu{core}" / "cpufreq" / "scaling_governor") for core in cores]
    return tuple(sorted({name for name in names if name}))


def temperatures_celsius(root: Path = ROOT) -> dict[str, float]:
    """Return the temperatures of all sensors by name, in °C.

    Thermal zones are named by their type (``x86_pkg_temp``; on a Jetson ``cpu-thermal``), sensors of hwmon by
    their device and label (``k10temp Tctl``).

    Args:
        root: the root of the file system.
    """
    found: dict[str, float] = {}
    for zone in sorted((root / "sys" / "class" / "thermal").glob("thermal_zone*")):
        _add(found, _text(zone / "type") or zone.name, zone / "temp")
    for file in sorted((root / "sys" / "class" / "hwmon").glob("hwmon*/temp*_input")):
        sensor = file.name.removesuffix("_input")
        label = _text(file.with_name(f"{sensor}_label")) or sensor
        _add(found, f"{_text(file.with_name('name')) or file.parent.name} {label}", file)
    return found


def changes(before: Environment, after: Environment) -> tuple[str, ...]:
    """Return what is not the same before and after a run, and would change its times.

    Clocks and temperatures, which always change, are left out.
    """
    pairs: Mapping[str, tuple[object, object]] = {
        "CPU affinity": (before.affinity, after.affinity),
        "the CPU limit in cores": (before.cpu_limit_cores, after.cpu_limit_cores),
        "the memory limit in MiB": (before.memory_limit_mib, after.memory_limit_mib),
        "the instruction set": (before.instruction_sets, after.instruction_sets),
        "the clock governor": (before.frequency_governors, after.frequency_governors),
        **{
            f"the version of {name}": (before.versions.get(name), after.versions.get(name))
            for name in (*before.versions, *(after.versions.keys() - before.versions.keys()))
        },
    }
    return tuple(
        f"{name} changed from {_shown(first)} to {_shown(second)} during the run"
        for name, (first, second) in pairs.items()
        if first != second
    )


def _add(found: dict[str, float], name: str, file: Path) -> None:
    """Add a temperature in thousandths of a degree; some sensors fail while their device sleeps."""
    text = _text(file)
    if text.removeprefix("-").isdigit():
        unique = name if name not in found else f"{name} {sum(key.startswith(name) for key in found) + 1}"
        found[unique] = round(int(text) / 1000, 1)


def _cpuinfo_clocks(cores: Collection[int], cpuinfo: Collection[str]) -> Iterator[int]:
    core = -1
    for line in cpuinfo:
        name, _, value = (part.strip() for part in line.partition(":"))
        if name == "processor" and value.isdigit():
            core = int(value)
        elif name == "cpu MHz" and core in cores:
            try:
                yield round(float(value))
            except ValueError:  # a truncated line
                continue


def _package_versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # noqa: PERF203 -- few packages
            continue
    return found


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _text(file: Path) -> str:
    return next(iter(_lines(file)), "").strip()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
