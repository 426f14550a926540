"""INT8 on this CPU, with and without its VNNI: engines agree with their graphs or are refused.

oneDNN, by which OpenVINO computes, obeys ``ONEDNN_MAX_CPU_ISA`` in a process of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from ccr_deploy.backends.base import BuildSource
from ccr_deploy.backends.int8_weights import int8_weights_here
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeBackend
from ccr_deploy.backends.onnxruntime.int8 import read_rounding_graph, truncates_fp16
from ccr_deploy.core.metrics import cosine_similarities, flipped_bits
from ccr_deploy.core.stages import SCHEDULES
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import EngineError
from ccr_deploy.graphs.passes import QuantizeInFp32Pass
from ccr_deploy.quantization.emulation import emulate
from ccr_deploy.workflow.graphs import load_model, model_runner

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.bundle.reader import Bundle
    from tests.support.demo import CalibratedDemo

ROOT = Path(__file__).parents[3]
INT8_GATES = {"flipped_percent": 2, "cosine": 0.98}
x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only x86 processors add INT8 products in 16 bits"
)


def held_to_7_bits(model: ir.Model) -> ir.Model:
    """Return a copy with weights of 7 bits: every other odd one is rounded up; scales are doubled."""
    result = ir.from_proto(ir.to_proto(model))
    dequantizers = [
        node
        for node in result.graph
        if node.op_type == "DequantizeLinear"
        and node.inputs[0] is not None
        and node.inputs[0].is_initializer()
    ]
    assert dequantizers
    for node in dequantizers:
        (weight, scale) = (value.const_value for value in node.inputs[:2] if value is not None)
        assert weight is not None
        assert scale is not None
        halves = []
        for channel in weight.numpy():
            is_up = False
            for integer in channel.ravel().tolist():
                half = integer // 2
                if integer % 2:
                    is_up = not is_up
                    half += is_up
                halves.append(min(63, max(-63, half)))
        replace(result, node, 0, np.array(halves, dtype=np.int8).reshape(weight.numpy().shape))
        replace(result, node, 1, 2 * scale.numpy())
    return result


def replace(model: ir.Model, node: ir.Node, index: int, array: npt.NDArray[np.generic]) -> None:
    """Make a node read a constant; scales may be shared with other nodes, which keep theirs."""
    name = f"{node.name}/{index}_of_7_bits"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    model.graph.register_initializer(value)
    node.replace_input_with(index, value)


def graph_answers(
    bundle: Bundle, feeds: dict[str, npt.NDArray[np.uint8]], weight_bits: int
) -> dict[str, npt.NDArray[Any]]:
    """Return the results of the bundle's INT8 graphs without optimizations, with weights of some bits."""
    found = {}
    for stage, name in (("encoder", "image"), ("classifier", "code")):
        schedule = "iteration-major" if stage == "encoder" else None
        model = load_model(bundle, bundle.graph(stage, "int8", schedule))
        with model_runner(emulate(held_to_7_bits(model) if weight_bits == 7 else model, "int8")) as runner:
            (found[stage],) = runner.infer({name: feeds[name]}).values()
    return found


def engine_answers(
    bundle: Bundle,
    feeds: dict[str, npt.NDArray[np.uint8]],
    folder: Path,
    *,
    max_isa: str | None = None,
    weight_bits: int | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Return the results of OpenVINO's INT8 engines, built and run in a separate process."""
    np.savez(folder / "inputs.npz", **feeds)
    arguments = [bundle.path, folder / "engines", folder / "inputs.npz", folder / "outputs.npz"]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": max_isa} if max_isa else dict(os.environ)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.openvino_process",
            *map(str, arguments),
            *map(str, [weight_bits] if weight_bits else []),
        ],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    with np.load(folder / "outputs.npz") as found:
        return dict(found)


@pytest.fixture
def feeds(
    calibrated_demo: CalibratedDemo, real_crops: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.uint8]]:
    images = real_crops[::20]
    bundle = calibrated_demo.bundle
    with model_runner(load_model(bundle, bundle.graph("encoder", "fp32", "iteration-major"))) as runner:
        return {"image": images, "code": runner.infer({"image": images})["code"]}


@pytest.mark.parametrize(
    "max_isa", [None, pytest.param("AVX2", marks=x86), pytest.param("AVX512_CORE", marks=x86)]
)
def test_engines_agree_with_their_graphs_with_and_without_vnni(
    calibrated_demo: CalibratedDemo,
    feeds: dict[str, npt.NDArray[np.uint8]],
    tmp_path: Path,
    max_isa: str | None,
) -> None:
    found = engine_answers(calibrated_demo.bundle, feeds, tmp_path, max_isa=max_isa)
    weight_bits = 7 if max_isa else int8_weights_here().bits
    assert found["encoder_weight_bits"] == found["classifier_weight_bits"] == weight_bits
    expected = graph_answers(calibrated_demo.bundle, feeds, weight_bits)
    flips = flipped_bits(found["encoder"].astype(np.uint8), expected["encoder"].astype(np.uint8))
    assert 100 * flips.mean() < 0.2
    cosines = cosine_similarities(found["classifier"], expected["classifier"])
    assert cosines.min() > 0.9995
    fp32 = flipped_bits(found["encoder"].astype(np.uint8), feeds["code"])
    assert 100 * fp32.mean() < INT8_GATES["flipped_percent"]


@x86
def test_saturating_sums_are_detected_and_refused(
    calibrated_demo: CalibratedDemo, feeds: dict[str, npt.NDArray[np.uint8]], tmp_path: Path
) -> None:
    """Builds with 8-bit weights on a CPU without VNNI, as if its flags had been misread."""
    found = engine_answers(calibrated_demo.bundle, feeds, tmp_path, max_isa="AVX2", weight_bits=8)
    for stage in ("encoder", "classifier"):
        message = str(found[f"{stage}_error"])
        assert f" {stage} wrongly: its activations deviate from the graph's by " in message
        assert "iteration-major," not in message  # the message does not propose the failed schedule
        assert message.endswith("use FP32, or another version of OpenVINO")


@x86
def test_the_commands_pass_every_gate_without_vnni(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        bundle = [str(calibrated_demo.bundle.path), "--target", "cpu-openvino", "--engines", str(tmp_path)]
        return subprocess.run(
            [sys.executable, "-m", "ccr_deploy", str(arguments[0]), *bundle, *map(str, arguments[1:])],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
            capture_output=True,
            text=True,
            check=False,
        )

    built = command("build-engine", "--int8")
    assert (built.returncode, built.stderr) == (0, "")
    assert "INT8 with 7-bit weights: " in built.stdout
    verified = command("verify", "--images", calibrated_demo.folder / "images")
    assert (verified.returncode, verified.stderr) == (0, ""), verified.stdout


def integer_convolution() -> bytes:
    """Return a graph whose convolution ONNX Runtime executes in INT8, with the largest possible sums."""
    weights = np.ones((64, 64, 3, 3), dtype=np.float32)
    weights[1::2] = -1
    constants = {
        "weights": weights,
        "activation_scale": np.float32(1 / 127),
        "weight_scale": np.full(64, 1 / 127, dtype=np.float32),
        "output_scale": np.float32(5),
        "zero": np.int8(0),
        "zeros": np.zeros(64, dtype=np.int8),
    }
    values = {
        name: ir.Value(name=name, const_value=ir.tensor(np.asarray(array), name=name))
        for name, array in constants.items()
    }
    for value in values.values():
        assert value.const_value is not None
        value.shape, value.dtype = ir.Shape(value.const_value.shape), value.const_value.dtype
    image = ir.Value(name="image", shape=ir.Shape([1, 64, 8, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes: list[ir.Node] = []

    def add(op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        nodes.append(ir.node(op_type, list(inputs), attributes))
        nodes[-1].outputs[0].name = f"{op_type}{len(nodes)}"
        return nodes[-1].outputs[0]

    def rounded(value: ir.Value, scale: str, zero: str, **attributes: int) -> ir.Value:
        quantizer = values[scale], values[zero]
        return add(
            "DequantizeLinear",
            add("QuantizeLinear", value, *quantizer, **attributes),
            *quantizer,
            **attributes,
        )

    weight = rounded(values["weights"], "weight_scale", "zeros", axis=0)
    sums = add("Conv", rounded(image, "activation_scale", "zero"), weight)
    output = rounded(sums, "output_scale", "zero")
    output.dtype, output.shape = ir.DataType.FLOAT, ir.Shape([1, 64, 6, 6])
    graph = ir.Graph(
        [image],
        [output],
        nodes=nodes,
        initializers=list(values.values()),
        opset_imports={"": 18},
        name="conv",
    )
    return ir.to_proto(ir.Model(graph, ir_version=9)).SerializeToString()


def test_onnxruntime_rounds_as_its_version_says() -> None:
    """The work-around is needed if and only if QuantizeLinear truncates FP16 values."""
    scale, zero = (
        ir.Value(name=name, const_value=ir.tensor(array, name=name))
        for name, array in (("scale", np.array(1, dtype=np.float16)), ("zero", np.array(0, dtype=np.int8)))
    )
    for value in (scale, zero):
        assert value.const_value is not None
        value.shape, value.dtype = ir.Shape([]), value.const_value.dtype
    values = ir.Value(name="values", shape=ir.Shape([4]), type=ir.TensorType(ir.DataType.FLOAT16))
    node = ir.node("QuantizeLinear", [values, scale, zero], name="quantizer")
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = (
        "integers",
        ir.DataType.INT8,
        ir.Shape([4]),
    )
    graph = ir.Graph(
        [values], node.outputs, nodes=[node], initializers=[scale, zero], opset_imports={"": 19}, name="q"
    )
    model = ir.Model(graph, ir_version=9)

    def integers() -> list[int]:
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
        (found,) = session.run(None, {"values": np.array([0.75, -0.75, 1.5, -2.25], dtype=np.float16)})
        return found.tolist()

    truncates = truncates_fp16(onnxruntime.__version__)
    assert integers() == ([0, 0, 1, -2] if truncates else [1, -1, 2, -2])
    QuantizeInFp32Pass()(model)
    assert integers() == [1, -1, 2, -2]


def test_an_onnxruntime_that_truncates_fp16_needs_onnx_ir(
    calibrated_demo: CalibratedDemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = calibrated_demo.bundle.graph("classifier", "int8", None)
    path = calibrated_demo.bundle.file(graph.file)
    assert b"_in_fp32" in read_rounding_graph(path, "1.24.4")
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(
        EngineError,
        match=r"int8\..*\.onnx: ONNX Runtime 1\.24\.4 .*: pip install 'onnxruntime>=1\.30', or "
        r"onnx-ir .*, or build FP32$",
    ):
        read_rounding_graph(path, "1.24.4")
    assert read_rounding_graph(path, "1.30.0") == path.read_bytes()


def test_onnxruntime_does_not_quantize_biases_in_fp16(
    calibrated_demo: CalibratedDemo, feeds: dict[str, npt.NDArray[np.uint8]]
) -> None:
    """With the graph of the bundle: the optimizer does not match quantizers in FP32."""
    bundle = calibrated_demo.bundle
    path = bundle.file(bundle.graph("classifier", "int8", None).file)
    backend = OnnxRuntimeBackend()
    with backend.optimize_int8(path.read_bytes()) as optimized, backend.load_graph(path) as as_written:
        found, expected = (
            runner.infer({"code": feeds["code"]})["logits"] for runner in (optimized, as_written)
        )
    assert cosine_similarities(found, expected).min() > 0.999


def test_onnxruntime_engines_agree_with_their_graphs_or_are_refused(
    calibrated_demo: CalibratedDemo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates a version with an unknown defect."""
    store = EngineStore(tmp_path)
    factory = EngineFactory(calibrated_demo.bundle, "cpu", store, stage_precisions("int8"))
    for schedule in SCHEDULES:
        factory.build("encoder", schedule)
    engine, _ = factory.build("classifier")
    monkeypatch.setattr("ccr_deploy.backends.onnxruntime.int8.truncates_fp16", lambda _: False)
    monkeypatch.setattr("ccr_deploy.backends.onnxruntime.cpu.broken_optimizers", lambda _: ())
    kept = engine.path.read_bytes()
    with pytest.raises(
        EngineError,
        match=r"/classifier\.int8\.\S+: ONNX Runtime \S+ computes this INT8 classifier wrongly: its "
        r"activations deviate from the graph's by .* %, quantization alone explains .* %: "
        r"use FP32, or another version of ONNX Runtime$",
    ):
        factory.build("classifier", rebuild=True)
    assert engine.path.read_bytes() == kept


def test_an_int8_graph_that_onnxruntime_refuses_is_named(tmp_path: Path) -> None:
    """Although ONNX Runtime gets only its bytes."""
    path = tmp_path / "classifier.onnx"
    path.write_bytes(integer_convolution().replace(b"\x04Conv", b"\x04Cone"))
    source = BuildSource(
        stage="classifier",
        precision="int8",
        schedule=None,
        batch=None,
        graph=path,
        input_shapes={},
        samples=dict,
        graph_in=pytest.fail,
        weights=pytest.fail,
        other_schedules=(),
        caches=tmp_path,
    )
    with pytest.raises(EngineError, match=r"/classifier\.onnx: ONNX Runtime \S+ cannot load it \(.*Cone"):
        OnnxRuntimeBackend().build(source, tmp_path / "engine.onnx")


EXPECTED_SUM = 575.0  # 64 channels times 9 of 1 * 1, rounded to the step of 5
SUMS = """
import pathlib, sys
sys.path[:0] = sys.argv[2:]
import numpy
from ccr_deploy.backends.base import EngineFile
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeBackend
from ccr_deploy.backends.onnxruntime.int8 import broken_optimizers

graph = pathlib.Path(sys.argv[1])
engine = graph.with_name("engine.onnx")
backend = OnnxRuntimeBackend()
backend.optimize_int8(graph.read_bytes(), engine)
executes_int8 = "QDQS8ToU8Transformer" not in broken_optimizers(backend.version)
assert (b"QLinearConv" in engine.read_bytes()) == executes_int8
with backend.load(EngineFile(engine, "int8")) as runner:
    (found,) = runner.infer({"image": numpy.ones((1, 64, 8, 8), dtype=numpy.float32)}).values()
print(*numpy.unique(found))
"""


@pytest.mark.parametrize(
    "emulator", [None, pytest.param(["qemu-x86_64", "-cpu", "Haswell"], marks=x86)], ids=["here", "Haswell"]
)
def test_onnxruntime_adds_int8_products_without_saturation(
    emulator: list[str] | None, tmp_path: Path
) -> None:
    """On this CPU and on an emulated one without VNNI: no variable limits ONNX Runtime."""
    if emulator and not shutil.which(emulator[0]):
        pytest.skip(f"{emulator[0]} (Debian's qemu-user) is not installed")
    (tmp_path / "conv.onnx").write_bytes(integer_convolution())
    python = os.path.realpath(sys.executable)  # the emulator cannot run a wrapper script
    finished = subprocess.run(
        [*(emulator or []), python, "-c", SUMS, tmp_path / "conv.onnx", *sys.path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == [f"{-EXPECTED_SUM}", f"{EXPECTED_SUM}"]
