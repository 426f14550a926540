"""The choice of a precision by speed-up and accuracy budget."""

from __future__ import annotations

import pytest

from ccr_deploy.bundle.accuracy import PrecisionAccuracy
from ccr_deploy.core.metrics import Interval
from ccr_deploy.engines.verdict import (
    CandidateTiming,
    PrecisionCandidate,
    Verdict,
    fastest_within_budget,
    without_speedup,
)
from ccr_deploy.errors import EngineError


def accuracy(loss: float | None, same: int = 90) -> PrecisionAccuracy:
    return PrecisionAccuracy(
        precision="int8",
        images=100,
        groups=10,
        bits=800,
        flipped_bits=8,
        equal_payloads=50,
        same_top1=same,
        top1_percent=None if loss is None else 80,
        top1_interval_percent=None if loss is None else Interval(70, 90),
        top1_loss_points=loss,
        top1_loss_interval_points=None if loss is None else Interval(loss - 1, loss + 1),
    )


def candidate(precision: str, ms: float, low: float = 1.5, record=None) -> PrecisionCandidate:
    timing = CandidateTiming(latency_ms_p50=ms, speedup=10 / ms, speedup_interval=Interval(low, low + 1))
    return PrecisionCandidate(precision=precision, timing=timing, accuracy=record)


FP32 = candidate("fp32", 10, 1)


def verdict(*candidates: PrecisionCandidate, budget: float = 1) -> Verdict:
    return Verdict(
        precision="int8", accuracy_budget_points=budget, high_precision=(), candidates=(FP32, *candidates)
    )


@pytest.mark.parametrize(
    ("record", "cost"), [(accuracy(0.4), 0.4), (accuracy(-0.4), -0.4), (accuracy(None), 10), (None, None)]
)
def test_the_cost_is_the_loss_or_without_labels_the_changed_classes(record, cost) -> None:
    found = candidate("int8", 5, record=record).cost_points
    assert found == cost


def test_fp32_costs_nothing_without_an_accuracy_record() -> None:
    assert FP32.cost_points == 0


def test_an_engine_is_faster_only_if_its_whole_interval_is_above_1() -> None:
    assert candidate("int8", 5, 1.01).is_faster
    assert not candidate("int8", 5, 0.99).is_faster
    assert not candidate("int8", 5, 1).is_faster


@pytest.mark.parametrize(("loss", "within"), [(0.9, True), (1.0, True), (1.1, False), (-3, True)])
def test_a_loss_is_within_the_budget_or_not(loss: float, within: bool) -> None:
    assert verdict(candidate("int8", 5, record=accuracy(loss))).is_within_budget is within


def test_an_unknown_cost_is_neither_within_nor_over_the_budget() -> None:
    assert verdict(candidate("int8", 5)).is_within_budget is None


def test_the_fastest_within_the_budget_is_chosen() -> None:
    int8 = candidate("int8", 3, record=accuracy(0.5))
    bf16 = candidate("bf16", 5, record=accuracy(0.1))
    assert fastest_within_budget((FP32, bf16, int8), 1) is int8
    assert fastest_within_budget((FP32, bf16, int8), 0.2) is bf16
    assert fastest_within_budget((FP32, bf16, int8), 0) is FP32


def test_without_fp32_the_fastest_within_the_budget_is_chosen_even_if_it_is_slower() -> None:
    fp16, int8 = candidate("fp16", 5, 1, accuracy(2)), candidate("int8", 8, 0.5, accuracy(0.5))
    assert fastest_within_budget((fp16, int8), 1) is int8
    assert fastest_within_budget((fp16, int8), 2) is fp16
    with pytest.raises(EngineError, match=r"FP16 and INT8 cost more than .* 0\.1 points.*no FP32 engine"):
        fastest_within_budget((fp16, int8), 0.1)


def test_candidates_of_unknown_cost_or_uncertain_speed_up_are_not_chosen() -> None:
    assert fastest_within_budget((FP32, candidate("int8", 3)), 100) is FP32
    doubtful = candidate("int8", 3, 0.9, accuracy(0))
    assert fastest_within_budget((FP32, doubtful), 100) is FP32


def test_an_unreliable_timing_has_a_latency_and_no_speed_up() -> None:
    left = without_speedup(candidate("int8", 5, record=accuracy(0.5)))
    assert left.timing == CandidateTiming(latency_ms_p50=5, speedup=None, speedup_interval=None)
    assert left.accuracy == accuracy(0.5)
    assert not left.is_faster
    untimed = PrecisionCandidate(precision="int8", timing=None, accuracy=None)
    assert without_speedup(untimed) == untimed
