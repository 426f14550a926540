"""Tables of the chain from image file to label."""

from __future__ import annotations

from msgspec.structs import replace

from ccr_deploy.benchmarking.stage_results import EndToEnd, Energy, ImageBytes, StartUp, StepTime
from ccr_deploy.benchmarking.step_times import STEPS
from ccr_deploy.core.metrics import Interval
from ccr_deploy.reporting.stage_tables import needs_table, start_table, steps_table


def step(name: str, milliseconds: float) -> StepTime:
    around = Interval(milliseconds - 0.1, milliseconds + 0.1)
    return StepTime(name, milliseconds, around, milliseconds + 1, around, ((milliseconds,),))


FOUND = EndToEnd(
    images="the bundle's 8 samples",
    image_count=8,
    steps=tuple(step(name, 2.0) for name in STEPS),
    sum=step("sum", 14.0),
    chain=step("chain", 16.0),
    unaccounted_ms=2.0,
    unaccounted_ms_interval=Interval(1.5, 2.5),
    image_bytes=ImageBytes(file=12345.6, pixels=150528, payload=810),
    peak_memory_mib=321.4,
    device_memory_mib=None,
    start_up=StartUp(
        "warm", (400.0, 500.0, 450.0), (90.0, 80.0, 70.0), (30.0, 40.0, 35.0), (520.0, 620.0, 555.0)
    ),
    energy=Energy(source=None, reason="no RAPL counters"),
)
MEASURED = Energy(
    source="RAPL",
    covers="package-0",
    images=40,
    seconds=4.0,
    idle_seconds=2.0,
    watts=30.0,
    idle_watts=10.0,
    joules_per_image=3.0,
    net_joules_per_image=2.0,
)


def test_shares_are_of_the_chain() -> None:
    table = steps_table(FOUND)
    assert [row[0] for row in table.rows][-2:] == ["sum of the steps", "chain, without time stamps"]
    assert [row[-1] for row in table.rows] == ["12.5 %"] * len(STEPS) + ["87.5 %", "100.0 %"]
    assert "2.000 ms (1.500 – 2.500)" in table.note


def test_the_payload_is_beside_file_and_pixels() -> None:
    rows = dict(needs_table(FOUND).rows)
    assert rows["sent over the network (the payload)"] == "810 bytes"
    assert rows["its image file"] == "12,346 bytes"
    assert rows["its pixels"] == "150,528 bytes"
    assert "memory on the GPU" not in rows
    assert dict(needs_table(replace(FOUND, device_memory_mib=50.0)).rows)["memory on the GPU"] == "50 MiB"


def test_energy_is_not_measured_for_a_reason() -> None:
    table = needs_table(FOUND)
    assert dict(table.rows)["energy"] == "not measured: no RAPL counters"
    assert table.note == ""


def test_energy_is_given_with_and_without_the_idle_power() -> None:
    table = needs_table(replace(FOUND, energy=MEASURED))
    rows = dict(table.rows)
    assert (rows["energy"], rows["energy without the idle power"]) == ("3.00 J", "2.00 J")
    assert table.note == "energy: RAPL (package-0), 30.0 W under load, 10.0 W idle, 40 images in 4.0 s"


def test_starts_have_their_medians_and_extremes() -> None:
    table = start_table(FOUND.start_up)
    assert table.rows[0] == ("interpreter and imports", "450.0", "400.0", "500.0")
    assert table.rows[-1] == ("in all", "555.0", "520.0", "620.0")
    assert table.note.startswith("3 new processes")
