"""The kernels of TensorRT-RTX engines, read from the log of the real builder, which needs no GPU."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper

from ccr_deploy.backends.build_facts import log_path
from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.tensorrt.builder import build
from ccr_deploy.backends.tensorrt.messages import BuildRequest
from ccr_deploy.backends.tensorrt.options import RtxOptions
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import EngineError
from ccr_deploy.reporting.kernel_tables import int8_cost_lines
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.build_facts import BuildFacts
    from ccr_deploy.backends.kernels import KernelListing
    from ccr_deploy.core.precisions import EnginePrecision, Precision
    from tests.support.demo import CalibratedDemo

pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")

TARGET = """
description = "batch 1"
backend = "tensorrt-rtx"
[precision]
encoder = "int8"
classifier = "int8"
[options]
compute_capabilities = ["8.6", "8.9"]
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target") / "one.toml"
    path.write_text(TARGET, encoding="utf-8")
    return path


def quantized_convolution(path: Path, *, cast_to_fp32: bool) -> Path:
    """Write a graph with one quantized convolution, whose dequantized tensors may be cast to FP32."""
    nodes = []

    def dequantized(quantized: str) -> str:
        nodes.append(helper.make_node("DequantizeLinear", [quantized, "scale"], [f"{quantized}_dq"]))
        if cast_to_fp32:
            nodes.append(
                helper.make_node("Cast", [f"{quantized}_dq"], [f"{quantized}_fp32"], to=TensorProto.FLOAT)
            )
        return f"{quantized}_fp32" if cast_to_fp32 else f"{quantized}_dq"

    nodes.append(helper.make_node("Cast", ["x"], ["x_fp16"], to=TensorProto.FLOAT16))
    nodes.append(helper.make_node("QuantizeLinear", ["x_fp16", "scale", "zero"], ["x_int8"]))
    data = dequantized("x_int8")
    nodes.append(helper.make_node("QuantizeLinear", ["weight", "scale", "zero"], ["w_int8"]))
    weight = dequantized("w_int8")
    nodes.append(helper.make_node("Conv", [data, weight], ["y_own"], name="conv", pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Cast", ["y_own"], ["y"], to=TensorProto.FLOAT))
    constants = {
        "scale": np.float16(0.05),
        "zero": np.int8(0),
        "weight": np.random.default_rng(0).normal(size=(32, 32, 3, 3)).astype(np.float16),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32, 16, 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


def built(
    graph: Path, precision: EnginePrecision, *capabilities: str, shapes: dict[str, tuple[int, ...]]
) -> BuildFacts:
    request = BuildRequest(
        graph=graph,
        engine=graph.with_suffix(".plan"),
        options=RtxOptions(compute_capabilities=capabilities),
        precision=precision,
        batch=Batch(),
        input_shapes=shapes,
        timing_cache=None,
        can_run=False,
    )
    return build(request, lambda _: None)


def encoder(
    demo: CalibratedDemo, precision: Precision, folder: Path
) -> tuple[Path, dict[str, tuple[int, ...]]]:
    """Return a copy of the demo's encoder, and the shapes of its inputs."""
    record = demo.bundle.graph("encoder", precision, "layer-major")
    graph = folder / "encoder.onnx"
    graph.write_bytes(demo.bundle.file(record.file).read_bytes())
    return graph, dict(demo.bundle.manifest.input_shapes("encoder"))


def test_a_quantized_convolution_is_executed_in_int8(tmp_path: Path) -> None:
    graph = quantized_convolution(tmp_path / "graph.onnx", cast_to_fp32=False)
    facts = built(graph, "int8", "8.9", shapes={"x": (32, 16, 16)})
    assert facts.executed_convolutions == {"int8": 1, "fp16": 0, "fp32": 0, "unknown": 0}
    (listing,) = facts.kernels
    (group,) = listing.convolutions
    assert (group.inputs, group.weights, group.names) == (("int8",), "int8", ("conv",))
    (convolution,) = (entry for entry in listing.kernels if entry.kind == "convolution")
    assert convolution.multiply_accumulates == 32 * 16 * 16 * 32 * 3 * 3
    assert "Layers:" in log_path(tmp_path / "graph.plan").read_text(encoding="utf-8")


def test_a_convolution_of_dequantized_tensors_that_are_cast_to_fp32_does_not_count_as_quantized(
    tmp_path: Path,
) -> None:
    graph = quantized_convolution(tmp_path / "graph.onnx", cast_to_fp32=True)
    facts = built(graph, "fp32", "8.9", shapes={"x": (32, 16, 16)})
    assert facts.executed_convolutions == {"int8": 0, "fp16": 0, "fp32": 1, "unknown": 0}
    with pytest.raises(EngineError, match=r"INT8 was requested, but the engine executes none of 1 conv"):
        built(graph, "int8", "8.9", shapes={"x": (32, 16, 16)})


def test_all_capabilities_of_a_target_get_the_kernels_of_the_lowest(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    graph, shapes = encoder(calibrated_demo, "fp16", tmp_path)

    def kernels(*capabilities: str) -> KernelListing:
        (listing,) = built(graph, "fp16", *capabilities, shapes=shapes).kernels
        assert listing.devices == capabilities
        return structs.replace(listing, devices=())

    turing, ada = kernels("7.5"), kernels("8.9")
    assert turing != ada
    assert kernels("8.9", "7.5") == turing
    assert kernels("8.0", "8.9", "12.0") == ada


def test_int8_is_refused_for_turing_which_computes_it_in_fp32(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    graph, shapes = encoder(calibrated_demo, "int8", tmp_path)
    with pytest.raises(
        EngineError, match=r"executes none of \d+ convolutions in INT8: 2 in FP16, \d+ in FP32"
    ):
        built(graph, "int8", "7.5", "8.9", shapes=shapes)
    assert built(graph, "int8", "8.0", "8.9", shapes=shapes).executed_convolutions["int8"] > 0


def test_an_int8_engine_has_the_kernels_of_fp16_beside_its_own(
    calibrated_demo: CalibratedDemo, target: Path, tmp_path: Path
) -> None:
    store = EngineStore(tmp_path)
    own = EngineFactory(calibrated_demo.bundle, str(target), store)
    fp16 = own.with_precision("fp16")
    for stage in ("encoder", "classifier"):
        facts = own.build(stage)[0].sidecar.build
        assert facts.fp16_kernels == fp16.build(stage)[0].sidecar.build.kernels
        (in_int8,), (in_fp16,) = facts.kernels, facts.fp16_kernels
        assert in_int8.kernel_count >= in_fp16.kernel_count
        assert in_int8.per_image is not None
        assert in_fp16.per_image is not None
        assert in_int8.per_image.activation_bytes > in_fp16.per_image.activation_bytes
        assert in_int8.per_image.weight_bytes < in_fp16.per_image.weight_bytes
        assert not fp16.build(stage)[0].sidecar.build.fp16_kernels


@pytest.fixture
def compared_request(calibrated_demo: CalibratedDemo, tmp_path: Path) -> BuildRequest:
    """Return a request for an INT8 encoder that is compared with an FP16 graph."""
    graph, shapes = encoder(calibrated_demo, "int8", tmp_path)
    fp16 = calibrated_demo.bundle.graph("encoder", "fp16", "layer-major")
    return BuildRequest(
        graph=graph,
        engine=tmp_path / "encoder.plan",
        options=RtxOptions(compute_capabilities=("8.9",)),
        precision="int8",
        batch=Batch(sizes=(1, 2)),
        input_shapes=shapes,
        timing_cache=None,
        can_run=False,
        fp16_graph=calibrated_demo.bundle.file(fp16.file),
    )


def test_the_log_has_a_heading_for_each_list_of_kernels(compared_request: BuildRequest) -> None:
    build(compared_request, lambda _: None)
    log = log_path(compared_request.engine).read_text(encoding="utf-8")
    own = f"==== {compared_request.graph}: the engine, INT8, batch 1, 2 ===="
    compared = f"==== {compared_request.fp16_graph}: FP16 for comparison, without an engine, batch 1, 2 ===="
    assert re.findall("^====.*|Layers:", log, re.MULTILINE) == [own, "Layers:", compared, "Layers:"]


def test_the_engine_is_kept_if_the_fp16_graph_cannot_be_compiled(
    compared_request: BuildRequest, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"damaged")
    request = structs.replace(compared_request, fp16_graph=damaged)
    facts = build(request, lambda _: None)
    assert request.engine.stat().st_size > 10_000
    assert facts.executed_convolutions["int8"] > 0
    assert facts.fp16_error
    assert not facts.fp16_kernels
    warning = f"the comparison with FP16 is not known: {facts.fp16_error}"
    assert int8_cost_lines(facts) == [warning]
    assert warning in log_path(request.engine).read_text(encoding="utf-8")


def test_the_time_of_the_comparison_is_not_that_of_the_build(
    calibrated_demo: CalibratedDemo, target: Path, tmp_path: Path
) -> None:
    factory = EngineFactory(calibrated_demo.bundle, str(target), EngineStore(tmp_path))
    started = time.perf_counter()
    sidecar = factory.build("encoder")[0].sidecar
    seconds = time.perf_counter() - started
    assert sidecar.build.fp16_seconds > 0
    assert sidecar.build_seconds + sidecar.build.fp16_seconds <= seconds


def test_each_batch_size_has_its_own_kernels(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    target = tmp_path / "sizes.toml"
    sizes = "[batch]\nclassifier = [1, 2, 4]\n"
    target.write_text(TARGET.replace("[options]", sizes + "[options]"), encoding="utf-8")
    own = EngineFactory(calibrated_demo.bundle, str(target), EngineStore(tmp_path / "engines"))
    facts = own.build("classifier")[0].sidecar.build
    assert [listing.batch for listing in facts.kernels] == [1, 2, 4]
    assert [listing.batch for listing in facts.fp16_kernels] == [1, 4]
    totals = [listing.per_image for listing in facts.kernels]
    assert totals[0] is not None
    assert totals[1] is not None
    assert totals[2] is not None
    # The weights are read once for a batch, whose images share them.
    assert totals[0].weight_bytes > totals[1].weight_bytes > totals[2].weight_bytes


def test_a_dynamic_batch_has_kernels_and_no_bytes(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    target = tmp_path / "dynamic.toml"
    sizes = "[batch]\nencoder = [4]\nclassifier = [4]\ndynamic = true\n"
    target.write_text(TARGET.replace("[options]", sizes + "[options]"), encoding="utf-8")
    common = ("--target", target, "--engines", tmp_path / "engines", "--stage", "classifier")
    built_now = run("build-engine", calibrated_demo.bundle.path, *common)
    assert (built_now.status, built_now.stderr) == (0, "")
    assert "  dynamic batch: INT8 " in built_now.stdout
    assert "MB of activations" not in built_now.stdout
    (engine,) = tmp_path.glob("engines/*/classifier.int8.plan")
    shown = run("inspect", engine, "--kernels", "--gpu", "l4")
    assert (shown.status, shown.stderr) == (0, "")
    assert "INT8, dynamic batch" in shown.stdout
    assert "not known" in shown.stdout


def test_build_engine_and_inspect_show_the_kernels(
    calibrated_demo: CalibratedDemo, target: Path, tmp_path: Path
) -> None:
    common = ("--target", target, "--engines", tmp_path, "--stage", "classifier")
    outcome = run("build-engine", calibrated_demo.bundle.path, *common)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "  INT8 compared with FP16, for compute capability 8.6, 8.9:\n  batch 1: INT8 " in outcome.stdout
    assert "; FP16 " in outcome.stdout
    (engine,) = tmp_path.glob("*/classifier.int8.plan")
    shown = run("inspect", engine, "--kernels", "--gpu", "orin")
    assert (shown.status, shown.stderr) == (0, "")
    for text in ("Kernels", "INT8, batch 1", "FP16, batch 1", "floor ms", "not a prediction"):
        assert text in shown.stdout
    plain = run("inspect", engine, "--kernels")
    assert "floor" not in plain.stdout
    found = json.loads(run("inspect", engine, "--kernels", "--gpu", "l4", "--json").stdout)
    (profile,), (fp16,) = found["profiles"], found["fp16_profiles"]
    assert profile["floor_ms"] > 0
    assert profile["per_image"]["activation_bytes"] > fp16["per_image"]["activation_bytes"]
    assert profile["listing"]["devices"] == ["8.6", "8.9"]


def test_inspect_refuses_wrong_uses_of_kernels(
    calibrated_demo: CalibratedDemo, target: Path, tmp_path: Path
) -> None:
    common = ("--target", target, "--engines", tmp_path, "--stage", "classifier")
    assert run("build-engine", calibrated_demo.bundle.path, *common).status == 0
    (engine,) = tmp_path.glob("*/classifier.int8.plan")
    for gpu in ("l4", ""):
        assert "--gpu needs --kernels" in run("inspect", engine, "--gpu", gpu).stderr
    assert "unknown GPU ''" in run("inspect", engine, "--kernels", "--gpu", "").error_line
    unknown = run("inspect", engine, "--kernels", "--gpu", "l40")
    assert unknown.status == 2
    assert "did you mean l4" in unknown.error_line
    both = run("inspect", engine, "--kernels", "--reproduce")
    assert both.status == 2
    assert "--reproduce and --kernels cannot be combined" in both.stderr


def test_inspect_says_in_one_line_that_a_library_does_not_list_kernels(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    common = ("--target", "cpu", "--engines", tmp_path, "--stage", "classifier", "--no-timing")
    assert run("build-engine", calibrated_demo.bundle.path, *common).status == 0
    (engine,) = tmp_path.glob("*/classifier.fp32.onnx")
    outcome = run("inspect", engine, "--kernels")
    assert (outcome.status, len(outcome.stdout.splitlines())) == (0, 1)
    assert "the kernels are not known: onnxruntime does not list them" in outcome.stdout
