"""The sensors of energy and power of this machine: RAPL, a Jetson's power rails, and NVML."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.gpu_sensors import open_sensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ccr_deploy.benchmarking.gpu_sensors import GpuSensors

_POWERCAP = Path("sys/class/powercap")
_HWMON = Path("sys/class/hwmon")
_RAPL_PARTS = ("package", "dram")
"""RAPL domains that are counted: ``core`` and ``uncore`` are parts of a package, ``psys`` contains it."""
_WHOLE_MODULE = ("VDD_IN", "POM_5V_IN")
"""Rails that supply a whole module, as in jetson-stats; modules without one have a rail for each part."""
_CHANNELS = (1, 2, 3)
"""Channels of an INA3221 that a rail can be connected to; others are computed from these."""


class NotMeasuredError(Exception):
    """The energy cannot be measured on this machine; the message is the reason."""


@dataclass(frozen=True)
class EnergyCounter:
    """A counter of energy in joules, which starts again at zero after `range_joules`, if that is not None."""

    name: str
    read: Callable[[], float]
    range_joules: float | None = None

    def used(self, before: float, after: float) -> float:
        """Return the energy between two readings, between which the counter started again once at most."""
        if after >= before or self.range_joules is None:
            return after - before
        return after + self.range_joules - before


@dataclass(frozen=True)
class PowerSensor:
    """The power of a device in watts at the moment of reading."""

    name: str
    read: Callable[[], float]


def rapl_counters(root: Path = Path("/")) -> tuple[EnergyCounter, ...]:
    """Return the counters of the processor's packages and of their memory.

    The kernel documents the files in ``Documentation/power/powercap/powercap.rst``; drivers for processors
    of AMD use the same names.

    Args:
        root: the folder that contains ``sys``.

    Raises:
        NotMeasuredError: if there are no counters, or this user may not read them.
    """
    folder = root / _POWERCAP
    found = []
    # Not intel-rapl-mmio:*, which counts the same packages again.
    for domain in sorted(folder.glob("intel-rapl:*")):
        name = _text(domain / "name")
        if name.startswith(_RAPL_PARTS):
            limit = _whole_number(domain / "max_energy_range_uj") / 1e6
            found.append(EnergyCounter(name, partial(_read_joules, domain / "energy_uj"), limit))
    if not found:
        raise NotMeasuredError(f"no RAPL counters in /{_POWERCAP}, as in most virtual machines")
    return tuple(found)


def module_rails(root: Path = Path("/")) -> tuple[PowerSensor, ...]:
    """Return the power rails of a Jetson's module, as jetson-stats chooses them; none on other machines.

    Args:
        root: the folder that contains ``sys``.

    Raises:
        NotMeasuredError: if this user may not read them.
    """
    rails = {rail.name: rail for rail in _rails(root / _HWMON)}
    whole = [rails[name] for name in _WHOLE_MODULE if name in rails]
    return tuple(whole[:1] or rails.values())


def gpu_energy() -> EnergyCounter | PowerSensor:
    """Return the energy counter of the GPU that CUDA uses, or its power if it has none (before Volta).

    Raises:
        NotMeasuredError: if NVML is missing or has neither.
    """
    sensors = open_sensors()
    if sensors is None:
        raise NotMeasuredError("NVML cannot be opened, which reads a GPU's energy")
    return energy_of(sensors)


def energy_of(sensors: GpuSensors) -> EnergyCounter | PowerSensor:
    """Return the energy counter of a GPU, or its power if it has none.

    Raises:
        NotMeasuredError: if it has neither.
    """
    if sensors.read_joules() is not None:
        return EnergyCounter("GPU", lambda: _known(sensors.read_joules()))
    if sensors.read_watts() is not None:
        return PowerSensor("GPU", lambda: _known(sensors.read_watts()))
    raise NotMeasuredError("NVML gives neither energy nor power of this GPU")


def _rails(folder: Path) -> Iterator[PowerSensor]:
    for device in sorted(folder.glob("hwmon*")):
        # Some drivers give their device no name.
        if (device / "name").exists() and _text(device / "name") == "ina3221":
            for number in _CHANNELS:
                label = device / f"in{number}_label"
                # NC: not connected.
                if label.exists() and (name := _text(label)) != "NC":
                    yield PowerSensor(name, _rail_watts(device, number))


def _rail_watts(device: Path, number: int) -> Callable[[], float]:
    millivolts, milliamperes = device / f"in{number}_input", device / f"curr{number}_input"
    return lambda: _whole_number(millivolts) * _whole_number(milliamperes) / 1e6


def _read_joules(microjoules: Path) -> float:
    return _whole_number(microjoules) / 1e6


def _whole_number(path: Path) -> int:
    text = _text(path)
    try:
        return int(text)
    except ValueError:
        raise NotMeasuredError(f"{path}: not a number: {text!r:.40}") from None


def _text(path: Path) -> str:
    """Read a file of the kernel.

    Raises:
        NotMeasuredError: if it cannot be read.
    """
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except PermissionError:
        remedy = (
            "refused to root too: start the container with the right to read it"
            if os.geteuid() == 0
            else "only root may read it: run the command as root"
        )
        raise NotMeasuredError(f"{path}: {remedy}") from None
    except OSError as error:
        raise NotMeasuredError(f"{path}: cannot be read ({error.strerror or error})") from error


def _known(value: float | None) -> float:
    if value is None:
        raise NotMeasuredError("NVML stopped giving the energy of this GPU")
    return value
