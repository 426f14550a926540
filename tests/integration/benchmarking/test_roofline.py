"""`benchmark --roofline` measures the limits of this machine and compares every engine with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest

from ccr_deploy.benchmarking.machine_limits import measure_limits
from ccr_deploy.benchmarking.results import BenchmarkReport
from ccr_deploy.core.records import convert
from ccr_deploy.errors import EngineError
from ccr_deploy.graphs.work import graph_work
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle

ONE_THREAD = """
description = "one thread: several would wait for each other for minutes on a busy machine"
backend = "onnxruntime"
[options]
threads = 1
"""


@pytest.fixture(scope="module")
def report(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> BenchmarkReport:
    folder = tmp_path_factory.mktemp("roofline")
    (folder / "cpu.toml").write_text(ONE_THREAD)
    common = ("--target", folder / "cpu.toml", "--engines", folder / "engines", "--report", folder / "report")
    measured = run("benchmark", tiny_bundle.path, *common, "--rounds", "2", "--roofline")
    assert measured.status == 0, measured.stderr
    assert "Roofline: the times that this machine's limits allow" in measured.stdout
    return convert(BenchmarkReport, json.loads((folder / "report" / "benchmark.json").read_bytes()))


def test_every_engine_but_pytorch_is_compared_with_the_limits(report: BenchmarkReport) -> None:
    assert report.roofline is not None
    found = {(engine.subject, engine.candidate): engine for engine in report.roofline.engines}
    timed = {(timing.subject, timing.candidate): timing for timing in report.timings}
    assert found.keys() == {key for key in timed if "PyTorch" not in key[1]}
    for key, engine in found.items():
        assert engine.latency_ms_p50 == timed[key].latency_ms_p50
        assert engine.bound_ms is not None
        assert engine.bound_ms == max(engine.matrix_ms, engine.least_memory_ms)
        assert 0 < engine.lowest_intensity < engine.highest_intensity


def test_rates_name_what_measured_them(report: BenchmarkReport) -> None:
    assert report.roofline is not None
    (fp32,) = report.roofline.matrix_rates
    assert fp32.precision == "fp32"
    assert fp32.gmac_per_second > 0
    assert "NumPy" in fp32.measured_by or "OpenVINO" in fp32.measured_by
    assert "1 thread" in fp32.measured_by
    assert report.roofline.bandwidth.gigabytes_per_second > 0
    assert report.roofline.threads == 1


def test_the_work_of_the_chain_is_that_of_its_stages(report: BenchmarkReport) -> None:
    assert report.roofline is not None
    work = {engine.subject: engine for engine in report.roofline.engines if engine.is_target}
    for field in ("multiply_accumulates", "least_bytes", "most_bytes"):
        stages = sum(getattr(work[subject], field) for subject in ("encoder", "classifier"))
        assert getattr(work["chain"], field) == stages


def test_plain_unrolling_computes_more_than_hoisted_work(tiny_bundle: Bundle) -> None:
    work = {
        graph.schedule: graph_work(ir.load(tiny_bundle.file(graph.file)), 2).multiply_accumulates
        for graph in tiny_bundle.manifest.graphs
        if graph.stage == "encoder"
    }
    assert work["plain"] > work["iteration-major"] == work["layer-major"]


def test_a_machine_without_a_gpu_says_so_in_one_line() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError, match="the memory bandwidth of this machine cannot be measured: PyTorch"):
        measure_limits(("fp32",), 1, on_gpu=True)
