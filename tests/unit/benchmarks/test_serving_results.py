"""The table of what the frameworks alone take of the latency that the server adds."""

from __future__ import annotations

from benchmarks.added_latency import AddedLatency
from benchmarks.scaffold import from_json, to_json
from benchmarks.serving_results import CHEAP_MODEL, EmptyServer, ServingBenchmark, serving_floor_table
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.metrics import Interval

MACHINE = MachineState("A processor", 2, 8.0, "Linux", "3.11", 0.0, None)


def added(model: str, way: str, milliseconds: float) -> AddedLatency:
    return AddedLatency(
        model=model,
        way=way,
        requests=80,
        gap_ms=20.0,
        engine_p50_ms=1.0,
        engine_p99_ms=2.0,
        request_p50_ms=1.0 + milliseconds,
        request_p99_ms=4.0,
        added_p50_ms=milliseconds,
        added_p50_interval=Interval(milliseconds, milliseconds),
        added_p99_ms=2.0,
    )


def test_frameworks_are_compared_with_what_the_server_adds_to_the_fastest_engine() -> None:
    result = ServingBenchmark(
        schema_version=4,
        model="ccr-layer1",
        target="cpu-openvino",
        precision="int8",
        rounds=1,
        round_seconds=1.0,
        machine=MACHINE,
        rates=(),
        latencies=(
            added("encoder, ccr-layer1", "HTTP", 9.0),
            added(CHEAP_MODEL, "HTTP", 1.25),
            added(CHEAP_MODEL, "gRPC", 2.0),
        ),
        empty_server=(
            EmptyServer("kserve", "HTTP", 2.0, 3.0),
            EmptyServer("bare", "gRPC", 1.5, 3.0),
            EmptyServer("bare", "HTTP", 0.5, 3.0),
            EmptyServer("kserve", "gRPC", 1.75, 3.0),
        ),
    )
    assert from_json(to_json(result), ServingBenchmark) == result
    assert serving_floor_table(result).rows == (
        ("HTTP", "1.25 ms", "0.50 ms", "40 %", "2.00 ms"),
        ("gRPC", "2.00 ms", "1.50 ms", "75 %", "1.75 ms"),
    )
