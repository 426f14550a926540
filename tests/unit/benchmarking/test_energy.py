"""Energy by RAPL, a Jetson's rails and NVML: planted trees of ``/sys``, and a stand-in for NVML."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.benchmarking import energy as energy_module
from ccr_deploy.benchmarking.energy import (
    CounterMeter,
    PowerMeter,
    energy_per_image,
    find_meter,
    integrated_joules,
    measure_energy,
)
from ccr_deploy.benchmarking.energy_sources import (
    EnergyCounter,
    NotMeasuredError,
    PowerSensor,
    energy_of,
    module_rails,
    rapl_counters,
)

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = "sys/class/powercap/intel-rapl:0"
RAPL = {
    f"{PACKAGE}/name": "package-0",
    f"{PACKAGE}/energy_uj": "1500000",
    f"{PACKAGE}/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:1/name": "dram",
    "sys/class/powercap/intel-rapl:0:1/energy_uj": "250000",
    "sys/class/powercap/intel-rapl:0:1/max_energy_range_uj": "65712999613",
    "sys/class/powercap/intel-rapl:1/name": "psys",
    "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
}
HWMON = "sys/class/hwmon/hwmon1"
ORIN_NX = {
    "sys/class/hwmon/hwmon0/name": "tmp451",
    f"{HWMON}/name": "ina3221",
    f"{HWMON}/in1_label": "VDD_IN",
    f"{HWMON}/in1_input": "5000",
    f"{HWMON}/curr1_input": "1200",
    f"{HWMON}/in2_label": "VDD_CPU_GPU_CV",
    f"{HWMON}/in2_input": "5000",
    f"{HWMON}/curr2_input": "400",
    f"{HWMON}/in3_label": "NC",
    f"{HWMON}/in7_label": "sum of shunt voltages",
}


def planted(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def test_rapl_counts_packages_and_memory_once(tmp_path: Path) -> None:
    """Cores are part of a package, psys contains it, and the mmio interface repeats it."""
    counters = rapl_counters(planted(tmp_path, RAPL))
    assert [(counter.name, counter.read()) for counter in counters] == [("package-0", 1.5), ("dram", 0.25)]


def test_a_counter_that_started_again_is_continued() -> None:
    counter = EnergyCounter("package-0", lambda: 0.0, range_joules=1000.0)
    assert counter.used(990.0, 15.0) == pytest.approx(25.0)
    assert counter.used(15.0, 990.0) == pytest.approx(975.0)


def test_rapl_is_read_before_and_after(tmp_path: Path) -> None:
    meter = find_meter(uses_gpu=False, root=planted(tmp_path, RAPL))

    def run() -> None:
        (tmp_path / PACKAGE / "energy_uj").write_text("1750000\n")

    assert (meter.source, meter.covers) == ("RAPL", "package-0, dram")
    assert meter.joules(run) == pytest.approx(0.25)


def test_a_machine_without_rapl_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasuredError, match="no RAPL counters in /sys/class/powercap"):
        find_meter(uses_gpu=False, root=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_counter_for_root_alone_is_named(tmp_path: Path) -> None:
    path = planted(tmp_path, RAPL) / PACKAGE / "energy_uj"
    path.chmod(0)
    (counter, _) = rapl_counters(tmp_path)
    with pytest.raises(NotMeasuredError, match=r"energy_uj: only root may read it: run the command as root"):
        counter.read()


@pytest.mark.parametrize(
    ("user", "remedy"),
    [
        (1000, "only root may read it: run the command as root"),
        (0, "refused to root too: start the container with the right to read it"),
    ],
)
def test_permission_errors_are_reasons(
    user: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    counters = rapl_counters(planted(tmp_path, RAPL))
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    monkeypatch.setattr("os.geteuid", lambda: user)
    found = measure_energy(lambda: CounterMeter("RAPL", counters), lambda: None, idle_seconds=0)
    assert found.source is None
    assert found.reason
    assert found.reason.endswith(f"energy_uj: {remedy}")
    assert found.joules_per_image is None


def test_a_device_without_a_name_is_no_rail(tmp_path: Path) -> None:
    (planted(tmp_path, ORIN_NX) / "sys/class/hwmon/hwmon2").mkdir()
    assert [rail.name for rail in module_rails(tmp_path)] == ["VDD_IN"]


def test_a_counter_without_a_number_is_a_reason(tmp_path: Path) -> None:
    counters = rapl_counters(planted(tmp_path, {**RAPL, f"{PACKAGE}/energy_uj": "?"}))
    with pytest.raises(NotMeasuredError, match="not a number"):
        counters[0].read()


def test_the_rail_of_the_whole_module_is_used(tmp_path: Path) -> None:
    (rail,) = module_rails(planted(tmp_path, ORIN_NX))
    assert (rail.name, rail.read()) == ("VDD_IN", pytest.approx(6.0))


def test_without_such_a_rail_all_connected_ones_are_added(tmp_path: Path) -> None:
    """A Jetson AGX Orin has a rail for each part."""
    rails = module_rails(planted(tmp_path, {**ORIN_NX, f"{HWMON}/in1_label": "VDD_GPU_SOC"}))
    assert [rail.name for rail in rails] == ["VDD_GPU_SOC", "VDD_CPU_GPU_CV"]
    assert sum(rail.read() for rail in rails) == pytest.approx(8.0)


def test_rails_come_first_on_a_jetson(tmp_path: Path) -> None:
    meter = find_meter(uses_gpu=True, root=planted(tmp_path, ORIN_NX))
    assert (meter.source, meter.covers) == ("INA3221", "VDD_IN")


def test_power_is_integrated_by_trapezoids() -> None:
    assert integrated_joules([(0.0, 10.0), (1.0, 20.0), (3.0, 20.0)]) == pytest.approx(55.0)


def test_a_failing_power_sensor_is_a_reason() -> None:
    readings = iter([5.0])

    def read() -> float:
        for value in readings:
            return value
        raise NotMeasuredError("gone")

    meter = PowerMeter("INA3221", (PowerSensor("VDD_IN", read),))
    assert measure_energy(lambda: meter, lambda: None, idle_seconds=0.05).reason == "gone"


class Sensors:
    """A GPU's sensors."""

    def __init__(self, joules: float | None, watts: float | None) -> None:
        self._joules, self._watts = joules, watts

    def read_joules(self) -> float | None:
        return self._joules

    def read_watts(self) -> float | None:
        return self._watts


def test_a_gpu_without_a_counter_is_measured_by_its_power() -> None:
    counter = energy_of(Sensors(12.5, 300.0))  # type: ignore[arg-type]
    assert isinstance(counter, EnergyCounter)
    assert counter.read() == 12.5
    power = energy_of(Sensors(None, 300.0))  # type: ignore[arg-type]
    assert isinstance(power, PowerSensor)
    assert power.read() == 300.0
    with pytest.raises(NotMeasuredError, match="neither energy nor power"):
        energy_of(Sensors(None, None))  # type: ignore[arg-type]


def test_a_gpu_is_not_measured_by_rapl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RAPL does not count what a GPU uses."""

    def no_nvml() -> EnergyCounter:
        raise NotMeasuredError("no NVML")

    monkeypatch.setattr(energy_module, "gpu_energy", no_nvml)
    with pytest.raises(NotMeasuredError, match="no NVML"):
        find_meter(uses_gpu=True, root=planted(tmp_path, RAPL))


def test_the_idle_power_is_subtracted() -> None:
    meter = CounterMeter("RAPL", (EnergyCounter("package-0", lambda: 0.0),))
    found = energy_per_image(meter, 50, (20.0, 2.0), (150.0, 5.0))
    assert (found.idle_watts, found.watts) == (10.0, 30.0)
    assert found.joules_per_image == pytest.approx(3.0)
    assert found.net_joules_per_image == pytest.approx(2.0)


def test_images_are_counted_while_the_energy_is_measured() -> None:
    counted = iter(range(10))
    meter = CounterMeter("RAPL", (EnergyCounter("package-0", lambda: float(next(counted))),))
    runs: list[None] = []
    found = measure_energy(lambda: meter, lambda: runs.append(None), idle_seconds=0.01, load_seconds=0.02)
    assert found.images == len(runs) > 0
    assert found.joules_per_image == pytest.approx(1 / len(runs))
