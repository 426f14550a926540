"""The processor's sensors, from files as the kernel writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.benchmarking.scenarios.cpu_sensors import CpuSensors, CpuState

if TYPE_CHECKING:
    from pathlib import Path


PACKAGE = "sys/class/powercap/intel-rapl:0"
PLATFORM = "sys/class/powercap/intel-rapl:1"
RAPL = {
    f"{PACKAGE}/name": "package-0\n",
    f"{PACKAGE}/energy_uj": "5000000\n",
    f"{PACKAGE}/max_energy_range_uj": "100000000\n",
    f"{PACKAGE}:0/name": "core\n",
    f"{PACKAGE}:0/energy_uj": "3000000\n",
    f"{PACKAGE}:1/name": "dram\n",
    f"{PACKAGE}:1/energy_uj": "1000000\n",
    f"{PACKAGE}:1/max_energy_range_uj": "100000000\n",
    f"{PLATFORM}/name": "psys\n",
    f"{PLATFORM}/energy_uj": "9000000\n",
    f"{PLATFORM}/max_energy_range_uj": "100000000\n",
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2}, raising=False)


def test_nothing_is_none(tmp_path: Path) -> None:
    assert CpuSensors.find(tmp_path).read() == CpuState(None, None, ())


def test_the_clock_is_the_mean_of_the_usable_cores(tmp_path: Path) -> None:
    clocks = {0: 3_000_000, 1: 800_000, 2: 2_000_000}
    write(
        tmp_path,
        {
            f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq": f"{kilohertz}\n"
            for core, kilohertz in clocks.items()
        },
    )
    assert CpuSensors.find(tmp_path).read().clock_mhz == 2500


def test_a_virtual_machine_has_the_clock_of_cpuinfo(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/cpuinfo": "".join(
                f"processor\t: {core}\ncpu MHz\t\t: {2000 + 100 * core}.1\n" for core in range(4)
            )
        },
    )
    assert CpuSensors.find(tmp_path).read().clock_mhz == 2100  # of the cores 0 and 2


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
    assert CpuSensors.find(tmp_path).read().temperature_celsius == 63


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
    assert CpuSensors.find(tmp_path).read().temperature_celsius == 48.2


def test_the_power_is_that_of_packages_and_memory(tmp_path: Path) -> None:
    """Of a laptop: cores are part of a package, and psys contains it."""
    write(tmp_path, RAPL)
    sensors = CpuSensors.find(tmp_path)
    before = sensors.read()
    assert before.joules == (5, 1)
    write(
        tmp_path,
        {
            f"{PACKAGE}/energy_uj": "25000000\n",
            f"{PACKAGE}:1/energy_uj": "2000000\n",
            f"{PLATFORM}/energy_uj": "60000000\n",
        },
    )
    assert sensors.watts(before, sensors.read(), 3) == 7


def test_a_counter_that_started_again_is_continued(tmp_path: Path) -> None:
    write(tmp_path, RAPL)
    sensors = CpuSensors.find(tmp_path)
    before = sensors.read()
    write(tmp_path, {f"{PACKAGE}/energy_uj": "1000000\n"})
    assert sensors.watts(before, sensors.read(), 2) == 48  # from 5 J to 100 J, and 1 J more


def test_without_a_reading_there_is_no_power(tmp_path: Path) -> None:
    write(tmp_path, RAPL)
    sensors = CpuSensors.find(tmp_path)
    before = sensors.read()
    write(tmp_path, {f"{PACKAGE}/energy_uj": "?\n"})
    assert sensors.watts(before, sensors.read(), 2) is None
