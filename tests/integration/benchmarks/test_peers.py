"""The comparison with peers on the demo's preset, and the profile of its encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.peers.__main__ import Plan, compare
from benchmarks.peers.results import PeerBenchmark
from benchmarks.scaffold import from_json, to_json
from benchmarks.where_time_goes import measured

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


def test_all_candidates_run_and_compute_the_same(tmp_path: Path) -> None:
    plan = Plan("demo", (2,), (2,), ("cpu-openvino",), minutes=0, rounds=1)
    result = compare(plan, tmp_path)
    assert from_json(to_json(result), PeerBenchmark) == result
    cells = {str(timing.cell) for timing in result.timings}
    assert cells == {"encoder, T=2, batch 2", "chain, T=2, batch 2", "classifier, batch 2"}
    names = {timing.candidate for timing in result.timings if str(timing.cell) == "encoder, T=2, batch 2"}
    assert names >= {
        "PyTorch eager",
        "plain export, ONNX Runtime",
        "plain export, OpenVINO",
        "ours, openvino fp32 iteration-major",
        "ours, openvino fp32 plain",
        "ours, openvino int8 layer-major",
    }
    for timing in result.timings:
        is_exact = timing.precision == "fp32"
        assert (timing.flipped_percent or 0) <= (0.2 if is_exact else 5), timing
        assert (1 if timing.cosine is None else timing.cosine) > (0.99 if is_exact else 0.9), timing
        assert len(timing.samples_ms) == 1
        assert min(map(min, timing.samples_ms)) > 0


def test_the_profile_has_both_libraries_and_the_floor(tmp_path: Path) -> None:
    result = measured("demo", tmp_path, runs=2)
    assert [profile.library for profile in result.profiles] == [
        "ONNX Runtime",
        "OpenVINO, one convolution for four gates",
        "OpenVINO",
    ]
    for profile in result.profiles:
        kinds = {kind.kind: kind for kind in profile.kinds}
        assert kinds["convolutions"].milliseconds > 0
        assert kinds["convolutions"].nodes >= 3 * 3
    assert result.multiply_accumulates > 1_000_000
    assert result.floor_milliseconds > 0
