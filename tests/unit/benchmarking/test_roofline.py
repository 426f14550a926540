"""The times that a machine's limits allow, computed by hand."""

from __future__ import annotations

import pytest

from ccr_deploy.benchmarking.machine_limits import MachineLimits, joined
from ccr_deploy.benchmarking.results import Timing
from ccr_deploy.benchmarking.roofline import (
    EngineWork,
    against_limits,
    floating_point,
    limit_of,
    needed_precisions,
)
from ccr_deploy.benchmarking.roofline_results import MatrixRate, MemoryBandwidth
from ccr_deploy.graphs.work import GraphWork

BANDWIDTH = MemoryBandwidth(gigabytes_per_second=10, measured_by="copy")
FP32 = MatrixRate(precision="fp32", gmac_per_second=100, measured_by="a")
INT8 = MatrixRate(precision="int8", gmac_per_second=300, measured_by="b")
LIMITS = MachineLimits(rates=(FP32, INT8), bandwidth=BANDWIDTH, not_measured=())
ENCODER = GraphWork(
    multiply_accumulates=7_000_000_000,
    int8_multiply_accumulates=6_000_000_000,
    least_bytes=20_000_000,
    most_bytes=400_000_000,
)
CLASSIFIER = GraphWork(
    multiply_accumulates=1_000_000_000,
    int8_multiply_accumulates=0,
    least_bytes=40_000_000,
    most_bytes=50_000_000,
)


def timing(milliseconds: float) -> Timing:
    return Timing(
        subject="chain",
        candidate="openvino int8",
        is_target=True,
        backend_version="1",
        runs=10,
        latency_ms_p50=milliseconds,
        latency_ms_p90=milliseconds,
        latency_ms_p99=milliseconds,
        latency_ms_mean=milliseconds,
        images_per_second=1,
        peak_memory_mib=1,
        speedup=None,
        speedup_interval=None,
    )


def test_quantized_work_takes_the_int8_rate_and_other_work_its_own() -> None:
    engines = [EngineWork(ENCODER, "fp32"), EngineWork(CLASSIFIER, "fp32")]
    found = against_limits(timing(80), engines, LIMITS)
    assert found.matrix_ms == pytest.approx(6e3 / 300 + 1e3 / 100 + 1e3 / 100)
    assert (found.multiply_accumulates, found.int8_multiply_accumulates) == (8_000_000_000, 6_000_000_000)
    assert (found.least_memory_ms, found.most_memory_ms) == pytest.approx((6, 45))
    assert (found.lowest_intensity, found.highest_intensity) == pytest.approx((8e9 / 450e6, 8e9 / 60e6))
    assert (found.bound_ms, found.reached_percent) == pytest.approx((40, 50))
    assert found.limit == "undecided"  # without fusion and caches, memory would take 45 ms


def test_without_a_rate_that_it_needs_an_engine_has_no_bound() -> None:
    only_int8 = MachineLimits(rates=(INT8,), bandwidth=BANDWIDTH, not_measured=("FP32: no library",))
    found = against_limits(timing(80), [EngineWork(ENCODER, "fp32")], only_int8)
    assert (found.matrix_ms, found.bound_ms, found.reached_percent, found.limit) == (None,) * 4
    assert found.least_memory_ms == pytest.approx(2)


@pytest.mark.parametrize(
    ("matrix", "least", "most", "limit"),
    [(50, 2, 40, "matrix rate"), (1, 2, 40, "memory"), (30, 2, 40, "undecided"), (None, 2, 40, None)],
)
def test_what_bounds_a_run_is_said_only_if_it_holds_for_every_number_of_bytes(
    matrix: float | None, least: float, most: float, limit: str | None
) -> None:
    assert limit_of(matrix, least, most) == limit


def test_floating_point_parts_of_an_int8_engine_are_fp32_on_a_cpu_and_fp16_on_a_gpu() -> None:
    assert [floating_point("int8", on_gpu=on_gpu) for on_gpu in (False, True)] == ["fp32", "fp16"]
    assert needed_precisions(["int8", "fp32"], on_gpu=False) == ("int8", "fp32")
    assert needed_precisions(["int8"], on_gpu=True) == ("int8", "fp16")


def test_the_highest_rate_of_a_precision_counts_and_a_missing_one_has_its_reason() -> None:
    slower = MatrixRate(precision="fp32", gmac_per_second=60, measured_by="c")
    reasons = {"fp32": "a library is not installed", "bf16": "the processor has no BF16"}
    found = joined([INT8, FP32, slower], BANDWIDTH, reasons)
    assert found.rates == (FP32, INT8)
    assert found.not_measured == ("BF16: the processor has no BF16",)
