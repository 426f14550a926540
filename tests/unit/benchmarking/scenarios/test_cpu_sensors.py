"""The processor's sensors, from files as the kernel writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.benchmarking.scenarios.cpu_sensors import CpuState, read_cpu, watts

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2}, raising=False)


def test_nothing_is_none(tmp_path: Path) -> None:
    assert read_cpu(tmp_path) == CpuState(None, None, None)


def test_the_clock_is_the_mean_of_the_usable_cores(tmp_path: Path) -> None:
    clocks = {0: 3_000_000, 1: 800_000, 2: 2_000_000}
    write(
        tmp_path,
        {
            f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq": f"{kilohertz}\n"
            for core, kilohertz in clocks.items()
        },
    )
    assert read_cpu(tmp_path).clock_mhz == 2500


def test_a_virtual_machine_has_the_clock_of_cpuinfo(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 2596.1\nprocessor\t: 1\ncpu MHz\t\t: 2000.1\n"},
    )
    assert read_cpu(tmp_path).clock_mhz == pytest.approx(2298.1)


def test_the_temperature_is_that_of_the_processors_hottest_zone(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone"
    write(
        tmp_path,
        {
            f"{zone}0/type": "cpu-thermal\n",
            f"{zone}0/temp": "51500\n",
            f"{zone}1/type": "x86_pkg_temp\n",
            f"{zone}1/temp": "63000\n",
            f"{zone}2/type": "iwlwifi\n",
            f"{zone}2/temp": "80000\n",
        },
    )
    assert read_cpu(tmp_path).temperature_celsius == 63


def test_without_zones_the_drivers_sensors_are_read(tmp_path: Path) -> None:
    folder = "sys/class/hwmon/hwmon"
    write(
        tmp_path,
        {
            f"{folder}0/name": "nvme\n",
            f"{folder}0/temp1_input": "70000\n",
            f"{folder}1/name": "k10temp\n",
            f"{folder}1/temp1_input": "48250\n",
            f"{folder}1/temp2_input": "broken\n",
        },
    )
    assert read_cpu(tmp_path).temperature_celsius == 48.2


def test_the_energy_is_that_of_the_packages_without_their_parts(tmp_path: Path) -> None:
    folder = "sys/class/powercap/intel-rapl:"
    write(
        tmp_path,
        {
            f"{folder}0/energy_uj": "5000000\n",
            f"{folder}0:0/energy_uj": "3000000\n",
            f"{folder}1/energy_uj": "7000000\n",
        },
    )
    assert read_cpu(tmp_path).energy_joules == 12


def test_power_is_energy_per_second() -> None:
    before, after = (CpuState(None, None, joules) for joules in (100.0, 150.0))
    assert watts(before, after, 5) == 10
    assert watts(after, before, 5) is None  # the counter wrapped around
    assert watts(CpuState(None, None, None), after, 5) is None
