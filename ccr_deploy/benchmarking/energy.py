"""The energy of one image: that of many runs, with and without the power of the idle machine."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ccr_deploy.benchmarking.energy_sources import (
    EnergyCounter,
    NotMeasuredError,
    PowerSensor,
    gpu_energy,
    module_rails,
    rapl_counters,
)
from ccr_deploy.benchmarking.stage_results import Energy, EnergySource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IDLE_SECONDS = 2.0
LOAD_SECONDS = 4.0
"""Long beside the 0.1 s after which NVML counts energy; RAPL does after 1 ms."""
SAMPLING_SECONDS = 0.01
"""Pause between two readings of a power sensor."""


class Meter(Protocol):
    """Measures the energy that is used while a function runs."""

    @property
    def source(self) -> EnergySource:
        """What reads the energy."""

    @property
    def covers(self) -> str:
        """What the energy is that of."""

    def joules(self, run: Callable[[], object]) -> float:
        """Call `run`, and return the energy used meanwhile in joules.

        Raises:
            NotMeasuredError: if it cannot be read.
        """


@dataclass(frozen=True)
class CounterMeter:
    """Reads energy counters before and after."""

    source: EnergySource
    counters: tuple[EnergyCounter, ...]

    @property
    def covers(self) -> str:
        """What the energy is that of."""
        return ", ".join(counter.name for counter in self.counters)

    def joules(self, run: Callable[[], object]) -> float:
        """Call `run`, and return the energy used meanwhile in joules."""
        before = [counter.read() for counter in self.counters]
        run()
        after = [counter.read() for counter in self.counters]
        return sum(map(EnergyCounter.used, self.counters, before, after))


@dataclass(frozen=True)
class PowerMeter:
    """Integrates the power that a thread reads in the meantime."""

    source: EnergySource
    sensors: tuple[PowerSensor, ...]

    @property
    def covers(self) -> str:
        """What the energy is that of."""
        return ", ".join(sensor.name for sensor in self.sensors)

    def joules(self, run: Callable[[], object]) -> float:
        """Call `run`, and return the energy used meanwhile in joules."""
        samples = [self._sample()]
        ended = threading.Event()
        failed: list[NotMeasuredError] = []

        def sample_until_ended() -> None:
            try:
                while not ended.wait(SAMPLING_SECONDS):
                    samples.append(self._sample())
            except NotMeasuredError as error:
                failed.append(error)

        thread = threading.Thread(target=sample_until_ended, daemon=True)
        thread.start()
        try:
            run()
        finally:
            ended.set()
            thread.join()
        if failed:
            raise failed[0]
        samples.append(self._sample())
        return integrated_joules(samples)

    def _sample(self) -> tuple[float, float]:
        return time.perf_counter(), sum(sensor.read() for sensor in self.sensors)


def integrated_joules(samples: Sequence[tuple[float, float]]) -> float:
    """Integrate power over time by the trapezoidal rule.

    Args:
        samples: times in seconds, in order, each with the power in watts.
    """
    return sum((end - start) * (first + second) / 2 for (start, first), (end, second) in pairwise(samples))


def find_meter(*, uses_gpu: bool, root: Path = Path("/")) -> Meter:
    """Return what measures the energy of the device that computes.

    A Jetson's rails supply processor and GPU, so they come first. RAPL does not count a GPU.

    Args:
        uses_gpu: whether the engines compute on a GPU.
        root: the folder that contains ``sys``.

    Raises:
        NotMeasuredError: if this machine has nothing that measures it, or this user may not read it.
    """
    if rails := module_rails(root):
        return PowerMeter("INA3221", rails)
    if not uses_gpu:
        return CounterMeter("RAPL", rapl_counters(root))
    gpu = gpu_energy()
    return PowerMeter("NVML", (gpu,)) if isinstance(gpu, PowerSensor) else CounterMeter("NVML", (gpu,))


def measure_energy(
    find: Callable[[], Meter],
    run: Callable[[], object],
    *,
    idle_seconds: float = IDLE_SECONDS,
    load_seconds: float = LOAD_SECONDS,
) -> Energy:
    """Measure the energy of one image: first that of the idle machine, then that under load.

    Args:
        find: returns what measures it.
        run: processes one image.
        idle_seconds: how long the idle machine is measured.
        load_seconds: shortest time under load.

    Returns:
        The energy; without a source, and with the reason, if it cannot be measured.
    """
    images = 0

    def load() -> None:
        nonlocal images
        end = time.perf_counter() + load_seconds
        while time.perf_counter() < end:
            run()
            images += 1

    try:
        meter = find()
        idle = _measured(meter, lambda: time.sleep(idle_seconds))
        loaded = _measured(meter, load)
    except NotMeasuredError as error:
        return Energy(source=None, reason=str(error))
    return energy_per_image(meter, images, idle, loaded)


def energy_per_image(
    meter: Meter, images: int, idle: tuple[float, float], loaded: tuple[float, float]
) -> Energy:
    """Return the energy of one image, gross and without the idle power.

    Args:
        meter: what measured it.
        images: number of images under load.
        idle: energy in joules, and duration in seconds, of the idle machine.
        loaded: the same under load.
    """
    idle_joules, idle_seconds = idle
    joules, seconds = loaded
    idle_watts = idle_joules / idle_seconds
    return Energy(
        source=meter.source,
        covers=meter.covers,
        images=images,
        seconds=seconds,
        idle_seconds=idle_seconds,
        watts=joules / seconds,
        idle_watts=idle_watts,
        joules_per_image=joules / images,
        net_joules_per_image=(joules - idle_watts * seconds) / images,
    )


def _measured(meter: Meter, run: Callable[[], object]) -> tuple[float, float]:
    """Return the energy in joules and the duration in seconds of a function."""
    started = time.perf_counter()
    joules = meter.joules(run)
    return joules, time.perf_counter() - started
