"""Tables and lines about precision, from synthetic records."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ccr_deploy.bundle.accuracy import PrecisionAccuracy
from ccr_deploy.bundle.manifest import CalibrationRecord, FileRecord
from ccr_deploy.core.metrics import Interval
from ccr_deploy.engines.verdict import CandidateTiming, PrecisionCandidate, RefusedPrecision, Verdict
from ccr_deploy.quantization.sensitivity import LayerSensitivity
from ccr_deploy.quantization.table import Disagreement
from ccr_deploy.reporting.precision_tables import (
    accuracy_table,
    comparison_table,
    cost_lines,
    ranges_table,
    refused_lines,
    sensitivity_table,
    speed_line,
)
from tests.unit.quantization.test_table import TABLE

INT8 = PrecisionAccuracy(
    precision="int8",
    images=200,
    groups=20,
    bits=10000,
    flipped_bits=25,
    equal_payloads=150,
    same_top1=190,
    top1_percent=81.26,
    top1_interval_percent=Interval(75, 87.04),
    top1_loss_points=0.55,
    top1_loss_interval_points=Interval(-0.5, 1.25),
)
UNLABELLED = replace(
    INT8,
    **dict.fromkeys(
        ("top1_percent", "top1_interval_percent", "top1_loss_points", "top1_loss_interval_points")
    ),
)
FP32 = PrecisionCandidate(
    precision="fp32",
    timing=CandidateTiming(latency_ms_p50=20, speedup=1, speedup_interval=Interval(1, 1)),
    accuracy=None,
)


def candidate(low: float = 1.8, record: PrecisionAccuracy | None = INT8) -> PrecisionCandidate:
    timing = CandidateTiming(latency_ms_p50=10, speedup=2, speedup_interval=Interval(low, 2.2))
    return PrecisionCandidate(precision="int8", timing=timing, accuracy=record)


def verdict(entry: PrecisionCandidate, kept: str = "int8", budget: float = 1) -> Verdict:
    return Verdict(
        precision=kept,
        accuracy_budget_points=budget,
        high_precision=("stem",) if kept == "int8" else (),
        candidates=(FP32, entry),
    )


def test_the_accuracy_table_shows_bits_payloads_and_classes() -> None:
    file = FileRecord(name="calibration.json", sha256="0" * 64, bytes=1)
    record = CalibrationRecord(
        table=file, high_precision=("stem",), images="val", accuracies=(INT8, UNLABELLED)
    )
    table = accuracy_table(record)
    assert table.rows[0] == (
        "INT8", "25 (0.250 %)", "150 of 200", "190 of 200", "81.3 %", "75.0 – 87.0", "0.55", "-0.50 – 1.25",
    )  # fmt: skip
    assert table.rows[1][4:] == ("", "", "", "")
    assert "200 images in 20 groups (val)" in table.note


def test_ranges_iteration_by_iteration() -> None:
    rows = ranges_table(TABLE).rows
    assert ranges_table(TABLE).columns == ("signal", "t=1", "t=2", "range ±")
    assert ("encoder stem", "", "", "2.000") in rows
    assert ("encoder cell1/hidden_state", "0.500", "0.750", "0.750") in rows


def test_the_sensitivity_table_advises_on_layers() -> None:
    layers = [
        LayerSensitivity("encoder", "stem", 0.01, 0.125, 1.5),
        LayerSensitivity("classifier", "layer4", 0.7, None, 0),
    ]
    table = sensitivity_table(layers, ["stem"])
    assert table.rows == (
        ("encoder stem", "0.125 %", "1.50 %", "1.0 %", "high precision"),
        ("classifier layer4", "", "0.00 %", "70.0 %", "INT8"),
    )
    assert "stem" in table.note
    assert "none" in sensitivity_table(layers, []).note


def test_different_ranges_are_compared() -> None:
    entries = [Disagreement("encoder", "stem", 2, 3), Disagreement("encoder", "cell1/t1", None, 1)]
    assert comparison_table(entries, "a.json", "b.json").rows == (
        ("encoder stem", "2.0000", "3.0000", "1.500"),
        ("encoder cell1/t1", "missing", "1.0000", ""),
    )


def test_the_speed_line_says_whether_an_engine_is_faster() -> None:
    times = "2.00 times as fast as FP32 (95 % interval 1.80 – 2.20; 10.00 ms, FP32 20.00 ms)"
    assert speed_line(verdict(candidate())) == f"INT8 is {times}"
    slower = speed_line(verdict(candidate(low=0.9)))
    assert slower.startswith(
        "INT8 is NOT FASTER on this machine: 2.00 times as fast as FP32 (95 % interval 0.90 – 2.20"
    )
    kept = speed_line(verdict(candidate(), kept="fp32"))
    assert kept == "FP32 is kept: no precision within the accuracy budget is faster (compared: INT8)"


@pytest.mark.parametrize(
    ("is_timing_asked", "reason"),
    [(True, "this machine cannot run the engine"), (False, "--no-timing was given")],
)
def test_an_engine_that_was_not_timed_has_a_reason(is_timing_asked: bool, reason: str) -> None:
    untimed = verdict(replace(candidate(), timing=None))
    assert speed_line(untimed, is_timing_asked=is_timing_asked) == f"INT8 was not timed: {reason}"


def test_refused_precisions_are_named_with_their_reasons() -> None:
    alone = replace(
        verdict(candidate()),
        candidates=(candidate(),),
        refused=(RefusedPrecision("fp32", "encoder.onnx: no such operator"),),
    )
    assert speed_line(alone) == ("INT8 was not timed: it is the only precision that could be built")
    assert refused_lines(alone) == ["FP32 was skipped: encoder.onnx: no such operator"]


def test_an_unreliable_timing_claims_no_speed() -> None:
    reasons = ("other processes used 1.3 of 2 cores while the encoder was timed",)
    for kept in ("int8", "fp32"):
        disturbed = replace(verdict(candidate(), kept), unreliable_reasons=reasons)
        assert speed_line(disturbed) == (
            f"{kept.upper()}: the timing is UNRELIABLE ({reasons[0]}): build again on an idle machine"
        )


def test_the_accuracy_of_a_precision_is_printed_once() -> None:
    lines = cost_lines([verdict(candidate()), verdict(candidate())])
    cost = "0.25 % of bits flipped, 0.6 points of top-1 lost (-0.5 – 1.2) on 200 held-out images"
    assert lines == [
        f"INT8 accuracy: {cost}: within the budget of 1 points",
        "layers in high precision: stem",
    ]


def test_costs_over_the_budget_without_labels_and_unknown() -> None:
    (line, _) = cost_lines([verdict(candidate(), budget=0.5)])
    assert line.endswith(
        "OVER THE BUDGET of 0.5 points (find sensitive layers with ccr-deploy calibrate --sensitivity)"
    )
    (line, _) = cost_lines([verdict(candidate(record=UNLABELLED))])
    assert "0.25 % of bits flipped, 5.0 % of top-1 classes changed: OVER THE BUDGET of 1 points" in line
    (line, _) = cost_lines([verdict(candidate(record=None))])
    assert line.startswith("INT8 accuracy: not recorded in the bundle")
    assert cost_lines([verdict(candidate(), kept="fp32")]) == []
