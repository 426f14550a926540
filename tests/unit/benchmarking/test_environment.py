"""What /proc and /sys say about processors, limits and sensors, on every kind of machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ccr_deploy.benchmarking.environment import (
    changes,
    clocks_mhz,
    governors,
    read_environment,
    temperatures_celsius,
    usable_cores,
)
from ccr_deploy.benchmarking.results import Environment

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CPUFREQ = "sys/devices/system/cpu/cpu{}/cpufreq/{}"


def test_a_system_without_proc_and_sys_is_unknown(tmp_path: Path) -> None:
    found = read_environment(root=tmp_path)
    assert (found.cpu_limit_cores, found.memory_limit_mib) == (None, None)
    assert (found.lowest_clock_mhz, found.highest_clock_mhz) == (None, None)
    assert (found.instruction_sets, found.frequency_governors, found.temperatures_celsius) == ((), (), {})
    assert found.versions.keys() >= {"python", "kernel", "numpy"}
    assert found.affinity == tuple(sorted(os.sched_getaffinity(0)))


def test_this_machine_can_be_read() -> None:
    found = read_environment("580.65")
    assert found.versions["driver"] == "580.65"
    assert found.affinity == usable_cores()
    assert all(-100 < celsius < 200 for celsius in found.temperatures_celsius.values())


def test_clocks_come_from_cpufreq_in_khz(tmp_path: Path) -> None:
    files = {
        CPUFREQ.format(core, "scaling_cur_freq"): f"{khz}\n" for core, khz in ((0, 3400123), (1, 800000))
    }
    root = write(tmp_path, {**files, "proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 1.0\n"})
    assert clocks_mhz((0, 1), root) == [3400, 800]
    assert clocks_mhz((1,), root) == [800]
    assert clocks_mhz((7,), root) == []


def test_without_cpufreq_clocks_come_from_cpuinfo(tmp_path: Path) -> None:
    text = "".join(
        f"processor\t: {core}\nmodel name\t: a CPU\ncpu MHz\t\t: {mhz}\n\n"
        for core, mhz in ((0, "2596.148"), (1, "2600.900"), (2, "trunc"), (3, "3000.0"))
    )
    root = write(tmp_path, {"proc/cpuinfo": text})
    assert clocks_mhz((0, 1, 2), root) == [2596, 2601]


def test_arm_has_no_clock_in_cpuinfo(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: asimddp i8mm\n"})
    assert clocks_mhz((0,), root) == []
    assert read_environment(root=root).instruction_sets == ("DotProd", "I8MM")


def test_different_governors_are_listed_once(tmp_path: Path) -> None:
    names = {0: "schedutil", 1: "schedutil", 2: "performance", 3: "powersave"}
    root = write(
        tmp_path, {CPUFREQ.format(core, "scaling_governor"): f"{name}\n" for core, name in names.items()}
    )
    assert governors((0, 1, 2), root) == ("performance", "schedutil")
    assert governors((9,), root) == ()


def test_temperatures_of_a_pc_come_from_zones_and_hwmon(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone0/temp": "61000\n",
            "sys/class/hwmon/hwmon0/name": "k10temp\n",
            "sys/class/hwmon/hwmon0/temp1_input": "54375\n",
            "sys/class/hwmon/hwmon0/temp1_label": "Tctl\n",
            "sys/class/hwmon/hwmon0/temp3_input": "49000\n",
            "sys/class/hwmon/hwmon1/temp1_input": "-5000\n",
            "sys/class/hwmon/hwmon1/fan1_input": "1200\n",
        },
    )
    assert temperatures_celsius(root) == {
        "x86_pkg_temp": 61.0,
        "k10temp Tctl": 54.4,
        "k10temp temp3": 49.0,
        "hwmon1 temp1": -5.0,
    }


def test_temperatures_of_a_jetson_have_the_names_of_its_zones(tmp_path: Path) -> None:
    zones = {"cpu-thermal": "48250", "gpu-thermal": "46937", "cv0-thermal": "", "soc0-thermal": "46500"}
    files: dict[str, str] = {}
    for number, (name, temp) in enumerate(zones.items()):
        files[f"sys/class/thermal/thermal_zone{number}/type"] = f"{name}\n"
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = temp  # a zone that is off has no value
    assert temperatures_celsius(write(tmp_path, files)) == {
        "cpu-thermal": 48.2,
        "gpu-thermal": 46.9,
        "soc0-thermal": 46.5,
    }


def test_a_sensor_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    root = write(tmp_path, {"sys/class/thermal/thermal_zone0/type": "acpitz\n"})
    (root / "sys/class/thermal/thermal_zone0/temp").mkdir()  # reading it is an OSError
    assert temperatures_celsius(root) == {}


def test_zones_of_one_name_are_numbered(tmp_path: Path) -> None:
    files: dict[str, str] = {}
    for number in range(3):
        files[f"sys/class/thermal/thermal_zone{number}/type"] = "acpitz\n"
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = f"{20 + number}000\n"
    found = temperatures_celsius(write(tmp_path, files))
    assert found == {"acpitz": 20.0, "acpitz 2": 21.0, "acpitz 3": 22.0}


def test_limits_of_a_container_are_read(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": "536870912\n",
        },
    )
    found = read_environment(root=root)
    assert (found.cpu_limit_cores, found.memory_limit_mib) == (1.5, 512)


BEFORE = Environment(
    affinity=(0, 1),
    cpu_limit_cores=None,
    memory_limit_mib=None,
    instruction_sets=("AVX2",),
    frequency_governors=("performance",),
    lowest_clock_mhz=3400,
    highest_clock_mhz=3400,
    temperatures_celsius={"cpu": 40.0},
    versions={"numpy": "2.4.6", "kernel": "6.1"},
)


def test_clocks_and_temperatures_always_change() -> None:
    after = replace(BEFORE, lowest_clock_mhz=800, temperatures_celsius={"cpu": 80.0})
    assert changes(BEFORE, after) == ()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"affinity": (0,)}, "CPU affinity changed from 0, 1 to 0 during the run"),
        ({"cpu_limit_cores": 1.5}, "the CPU limit in cores changed from none to 1.5 during the run"),
        ({"memory_limit_mib": 512}, "the memory limit in MiB changed from none to 512 during the run"),
        (
            {"frequency_governors": ("powersave",)},
            "the clock governor changed from performance to powersave during the run",
        ),
        (
            {"versions": {"numpy": "2.5.0", "kernel": "6.1"}},
            "the version of numpy changed from 2.4.6 to 2.5.0 during the run",
        ),
        (
            {"versions": {**BEFORE.versions, "torch": "2.15"}},
            "the version of torch changed from none to 2.15 during the run",
        ),
    ],
)
def test_other_changes_are_named(change: dict[str, object], line: str) -> None:
    assert changes(BEFORE, replace(BEFORE, **change)) == (line,)
