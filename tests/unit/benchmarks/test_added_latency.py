"""The latency that a server adds: percentiles, differences and the table, on synthetic samples."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.added_latency import REQUESTS, LowRate, added_latency_table, measure_low_rate
from ccr_deploy.core.metrics import Interval

ENGINE = np.arange(1.0, 101.0).reshape(20, 5)


def test_added_latency_is_the_difference_of_percentiles() -> None:
    found = LowRate("encoder", 0.25, ENGINE, {"HTTP": ENGINE + 2, "gRPC": ENGINE * 3})
    http, grpc = found.added()
    assert (http.model, http.way, http.requests, http.gap_ms) == ("encoder", "HTTP", 100, 250.0)
    assert (http.engine_p50_ms, http.request_p50_ms, http.added_p50_ms) == (50.5, 52.5, 2.0)
    assert http.added_p50_interval == Interval(2.0, 2.0)
    assert http.added_p99_ms == 2.0
    assert (grpc.engine_p99_ms, grpc.request_p99_ms, grpc.added_p99_ms) == (99.01, 297.03, 198.02)
    assert grpc.added_p50_ms == 101.0
    assert grpc.added_p50_interval.low < 101.0 < grpc.added_p50_interval.high


def test_each_round_begins_with_another_call() -> None:
    calls: list[str] = []
    ways = {name: lambda name=name: calls.append(name) for name in ("HTTP", "gRPC")}

    def engine() -> float:
        calls.append("engine")
        return 0.25

    found = measure_low_rate("classifier", engine, ways, rounds=3)
    measured = calls[-3 * 3 * REQUESTS :: REQUESTS]
    assert measured == ["engine", "HTTP", "gRPC", "HTTP", "gRPC", "engine", "gRPC", "engine", "HTTP"]
    assert (found.engine == 0.25).all()
    assert found.engine.shape == found.ways["HTTP"].shape == found.ways["gRPC"].shape == (3, REQUESTS)


def test_the_gap_does_not_depend_on_a_fast_engine() -> None:
    found = measure_low_rate("classifier", lambda: 0.25, {"HTTP": lambda: None}, rounds=1)
    assert found.gap_seconds >= 0.02


@pytest.mark.parametrize("warning", ["", "UNRELIABLE: other processes used 1.5 of 2 cores"])
def test_table_has_a_row_for_each_way(warning: str) -> None:
    entries = LowRate("encoder", 0.25, ENGINE, {"HTTP": ENGINE + 2}).added()
    table = added_latency_table("title", entries, "note", warning)
    assert table.rows == (("encoder", "HTTP", "50.50 ms", "2.00 ms", "2.00 – 2.00", "99.01 ms", "2.00 ms"),)
    assert table.warning == warning
