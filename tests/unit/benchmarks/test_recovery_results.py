"""The table of the recovery benchmark, from values that are computed by hand."""

from __future__ import annotations

from benchmarks.recovery_results import Recovery, RecoveryVariant, recovery_table
from benchmarks.scaffold import from_json, to_json
from ccr_deploy.core.metrics import Interval

RESULT = Recovery(
    schema_version=1,
    model="a model",
    checkpoints=2,
    images=100,
    groups=20,
    bits=28_800,
    fine_tuning_steps=150,
    variants=(
        RecoveryVariant("INT8: plain calibration", (0.2, 0.3), (80.0, 81.0), 1.0, 0.0, Interval(0.0, 0.0)),
        RecoveryVariant("INT8: rounded", (0.1, 0.2), (80.5, 81.5), 0.6, 0.5, Interval(-0.25, 1.25)),
    ),
)


def test_the_table_has_means_over_the_checkpoints_and_differences_from_plain_calibration() -> None:
    table = recovery_table(RESULT)
    assert table.rows == (
        ("INT8: plain calibration", "0.250 %", "1.00", "80.50 %", "+0.00", "+0.00 to +0.00"),
        ("INT8: rounded", "0.150 %", "0.60", "81.00 %", "+0.50", "-0.25 to +1.25"),
    )
    assert table.note is not None
    assert "means over 2 checkpoints on 100 test crops of 20 regions" in table.note


def test_a_result_is_read_as_it_was_written() -> None:
    assert from_json(to_json(RESULT), Recovery) == RESULT
