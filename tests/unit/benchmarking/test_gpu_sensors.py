"""The GPU's sensors, over a stand-in for NVML, and their absence on a machine without a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ccr_deploy.benchmarking.gpu_sensors import GpuSensors, named_reasons, open_sensors
from ccr_deploy.benchmarking.results import GpuState
from tests.support.gpu import gpu_is_there

HANDLE = 42


class NvmlError(Exception):
    """The base of NVML's errors."""


def nvml(**missing: bool) -> SimpleNamespace:
    """NVML of a GPU; `missing` names the functions that it does not support."""

    def sensor(name: str, values: object):
        def read(handle: int, *which: object) -> object:
            assert handle == HANDLE
            if missing.get(name):
                raise NvmlError("Not Supported")
            return values[which[0]] if which else values

        return read

    return SimpleNamespace(
        NvmlError=NvmlError,
        ClockType=SimpleNamespace(CLOCK_SM=1, CLOCK_MEM=2),
        TemperatureSensors=SimpleNamespace(TEMPERATURE_GPU=0),
        device_get_clock_info=sensor("clock", {1: 1980, 2: 2619}),
        device_get_power_usage=sensor("power", 412_345),
        device_get_temperature_v=sensor("temperature", {0: 61}),
        device_get_current_clocks_event_reasons=sensor("reasons", 0x1 | 0x4 | 0x40),
    )


def test_all_values_are_read_in_their_units() -> None:
    assert GpuSensors(nvml(), HANDLE).read() == GpuState(
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        power_watts=412.3,
        temperature_celsius=61,
        throttle_reasons=("sw_power_cap", "hw_thermal_slowdown"),
    )


def test_a_value_that_the_gpu_does_not_provide_is_none() -> None:
    """A Jetson's NVML lacks most of them."""
    found = GpuSensors(nvml(power=True, temperature=True), HANDLE).read()
    assert (found.power_watts, found.temperature_celsius, found.sm_clock_mhz) == (None, None, 1980)
    nothing = GpuSensors(nvml(clock=True, power=True, temperature=True, reasons=True), HANDLE).read()
    assert nothing == GpuState(None, None, None, None, ())


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0, ()),
        (0x1 | 0x2 | 0x10 | 0x100, ()),  # idle, application clocks, sync boost, display
        (0x4, ("sw_power_cap",)),
        (0x8, ("hw_slowdown",)),
        (0x20, ("sw_thermal_slowdown",)),
        (0x40, ("hw_thermal_slowdown",)),
        (0x80, ("hw_power_brake_slowdown",)),
        (
            0xFFFF,
            (
                "sw_power_cap",
                "hw_slowdown",
                "sw_thermal_slowdown",
                "hw_thermal_slowdown",
                "hw_power_brake_slowdown",
            ),
        ),
    ],
)
def test_reasons_are_named_and_chosen_ones_omitted(bits: int, names: tuple[str, ...]) -> None:
    assert named_reasons(bits) == names


def test_the_bits_are_those_of_nvml() -> None:
    nvml = pytest.importorskip("cuda.bindings.nvml")
    reasons = nvml.ClocksEventReasons
    assert named_reasons(int(reasons.EVENT_REASON_SW_POWER_CAP)) == ("sw_power_cap",)
    assert named_reasons(int(reasons.THROTTLE_REASON_HW_SLOWDOWN)) == ("hw_slowdown",)
    assert named_reasons(int(reasons.EVENT_REASON_SW_THERMAL_SLOWDOWN)) == ("sw_thermal_slowdown",)
    assert named_reasons(int(reasons.THROTTLE_REASON_HW_THERMAL_SLOWDOWN)) == ("hw_thermal_slowdown",)
    assert named_reasons(int(reasons.THROTTLE_REASON_HW_POWER_BRAKE_SLOWDOWN)) == ("hw_power_brake_slowdown",)


def test_the_functions_and_names_that_are_read_exist_in_nvml() -> None:
    real = pytest.importorskip("cuda.bindings.nvml")
    for name in vars(nvml()):
        assert hasattr(real, name), name
    assert (int(real.ClockType.CLOCK_SM), int(real.ClockType.CLOCK_MEM)) == (1, 2)
    assert hasattr(real.TemperatureSensors, "TEMPERATURE_GPU")


@pytest.mark.skipif(gpu_is_there(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_has_no_sensors() -> None:
    assert open_sensors() is None
