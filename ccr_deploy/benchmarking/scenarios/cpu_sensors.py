"""Clock, temperature and power of the processor, from the files of the Linux kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.energy_sources import NotMeasuredError, rapl_counters
from ccr_deploy.benchmarking.environment import ROOT, clocks_mhz, temperatures_celsius, usable_cores

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.benchmarking.energy_sources import EnergyCounter

_OF_PROCESSOR = re.compile(r"cpu|pkg|soc|core|k10temp|tdie|tctl", re.IGNORECASE)
"""Names of temperatures that belong to a processor, not to a disk or a battery."""


@dataclass(frozen=True)
class CpuState:
    """The processor at one moment; None if the system does not provide a value.

    `joules` are the readings of the energy counters; empty without counters, or if only root may read them.
    """

    clock_mhz: float | None
    temperature_celsius: float | None
    joules: tuple[float, ...]


@dataclass(frozen=True)
class CpuSensors:
    """The processor's sensors below `root`, with the energy counters of its packages and their memory."""

    counters: tuple[EnergyCounter, ...]
    root: Path

    @classmethod
    def find(cls, root: Path = ROOT) -> CpuSensors:
        """Find the sensors below the root folder of the system."""
        try:
            return cls(rapl_counters(root), root)
        except NotMeasuredError:
            return cls((), root)

    def read(self) -> CpuState:
        """Return the mean clock of the usable cores, the highest temperature, and the energy counters."""
        clocks = clocks_mhz(usable_cores(), self.root)
        temperatures = temperatures_celsius(self.root).items()
        return CpuState(
            clock_mhz=round(mean(clocks), 1) if clocks else None,
            temperature_celsius=max(
                (celsius for name, celsius in temperatures if _OF_PROCESSOR.search(name)), default=None
            ),
            joules=self._joules(),
        )

    def watts(self, before: CpuState, after: CpuState, seconds: float) -> float | None:
        """Return the mean power between two readings; None if the counters could not be read.

        Args:
            before: first reading.
            after: second reading.
            seconds: time between them.
        """
        if not before.joules or not after.joules:
            return None
        readings = zip(self.counters, before.joules, after.joules, strict=True)
        return round(sum(counter.used(first, last) for counter, first, last in readings) / seconds, 2)

    def _joules(self) -> tuple[float, ...]:
        try:
            return tuple(counter.read() for counter in self.counters)
        except NotMeasuredError:
            return ()
