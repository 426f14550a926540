"""The clocks, power and temperature of this machine's GPU, read by NVML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ccr_deploy.benchmarking.results import GpuState
from ccr_deploy.core.gpu import checked, cuda_runtime
from ccr_deploy.errors import CcrDeployError

if TYPE_CHECKING:
    from collections.abc import Callable

THROTTLE_REASONS = {
    0x04: "sw_power_cap",
    0x08: "hw_slowdown",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
}
"""Bits of NVML's clocks event reasons, named as in ``nvidia-smi --query-gpu``.

Reasons that somebody chose (application clocks, sync boost, display clocks) and an idle GPU are omitted.
"""
_BUS_ID_CHARACTERS = 32

_Value = TypeVar("_Value")


class GpuSensors:
    """The sensors of one GPU."""

    def __init__(self, nvml: Any, handle: int) -> None:  # noqa: ANN401 -- the library has no types
        self._nvml = nvml
        self._handle = handle

    def read(self) -> GpuState:
        """Read all sensors; a value that the GPU does not provide is None."""
        nvml, handle = self._nvml, self._handle
        watts = self.read_watts()
        return GpuState(
            sm_clock_mhz=self._value(lambda: nvml.device_get_clock_info(handle, nvml.ClockType.CLOCK_SM)),
            memory_clock_mhz=self._value(
                lambda: nvml.device_get_clock_info(handle, nvml.ClockType.CLOCK_MEM)
            ),
            power_watts=None if watts is None else round(watts, 1),
            temperature_celsius=self._value(
                lambda: nvml.device_get_temperature_v(handle, nvml.TemperatureSensors.TEMPERATURE_GPU)
            ),
            throttle_reasons=named_reasons(
                self._value(lambda: nvml.device_get_current_clocks_event_reasons(handle)) or 0
            ),
        )

    def read_watts(self) -> float | None:
        """Read the power; None if the GPU does not provide it."""
        milliwatts = self._value(lambda: self._nvml.device_get_power_usage(self._handle))
        return None if milliwatts is None else milliwatts / 1000

    def read_joules(self) -> float | None:
        """Read the energy since the driver was loaded; None if the GPU does not count it."""
        counted = self._value(lambda: self._nvml.device_get_total_energy_consumption(self._handle))
        return None if counted is None else counted / 1000

    def _value(self, read: Callable[[], _Value]) -> _Value | None:
        try:
            return read()
        except self._nvml.NvmlError:  # a Jetson and some drivers lack sensors
            return None


def open_sensors() -> GpuSensors | None:
    """Open the sensors of the GPU that CUDA uses.

    Returns:
        The sensors; None if this machine has no GPU or no NVML, or if cuda-python is older than 12.9.6 or is
        a 13 older than 13.2, which do not bind NVML.
    """
    try:
        from cuda.bindings import nvml
    except ImportError:
        return None
    try:
        nvml.init_v2()
        # Not by index: CUDA_VISIBLE_DEVICES changes CUDA's numbers and not NVML's.
        bus_id = checked(cuda_runtime().cudaDeviceGetPCIBusId(_BUS_ID_CHARACTERS, 0))
        handle = nvml.device_get_handle_by_pci_bus_id_v2(bus_id.decode().rstrip("\0"))
    except (nvml.NvmlError, CcrDeployError, RuntimeError):  # RuntimeError: the driver's library is missing
        return None
    return GpuSensors(nvml, handle)


def named_reasons(reasons: int) -> tuple[str, ...]:
    """Return the names of the bits of `reasons` that are in `THROTTLE_REASONS`."""
    return tuple(name for bit, name in THROTTLE_REASONS.items() if reasons & bit)
