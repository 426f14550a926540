"""Faults planted in the graphs and engines of the demo are located, and reduced to graphs that show them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import EngineError, WrongUsageError
from ccr_deploy.workflow.layers import compare_layers
from ccr_deploy.workflow.reduce import reduce_failure
from tests.support.cli_runner import run
from tests.support.planted import plant

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.verification.layers import LayerComparison, LayerReport
    from tests.support.demo import CalibratedDemo

SATURATING = """
import sys
from ccr_deploy.backends.int8_weights import Int8Weights
from ccr_deploy.backends.openvino import cpu
from ccr_deploy.cli import main
cpu.int8_weights_here = lambda _: Int8Weights(8, "a test says so")  # as if the flags had been misread
main()
"""


def change_weight(model: ir.Model, layer: str, row: int, factor: float) -> None:
    """Multiply the weights of one output channel of a layer."""
    for name, value in model.graph.initializers.items():
        if name.startswith(f"{layer}/weight") and value.const_value is not None:
            weight = value.const_value.numpy().copy()
            if weight.ndim == 4:
                weight[row] *= weight.dtype.type(factor)
                value.const_value = ir.tensor(weight, name=name)


def clip_activation(model: ir.Model, tensor: str) -> None:
    """Divide the range of a quantized activation by 8."""
    quantizer = next(
        node
        for node in model.graph
        if node.op_type == "QuantizeLinear" and node.inputs[0] is not None and node.inputs[0].name == tensor
    )
    scale = quantizer.inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    narrow = (scale.const_value.numpy() / 8).astype(scale.const_value.numpy().dtype)
    scale.const_value = ir.tensor(narrow, name=scale.name)


def compare(
    bundle: Bundle, folder: Path, precision: EnginePrecision, target: str = "cpu", samples: int = 2
) -> LayerReport:
    store = EngineStore(folder / "engines")
    return compare_layers(bundle, target, store, precision=precision, samples=samples)


def steps(report: LayerReport) -> dict[str, LayerComparison]:
    return {f"{found.stage} {found.level}": found for found in report.comparisons}


def reproduced(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of a reduced graph in a process that cannot import this project."""
    script = folder / "reproduce.py"
    assert "ccr_deploy" not in script.read_text(encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-I", str(script)], capture_output=True, text=True, check=False, cwd=folder
    )


@pytest.mark.parametrize("target", ["cpu", "cpu-openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_correct_engines_pass(
    calibrated_demo: CalibratedDemo, tmp_path: Path, target: str, precision: EnginePrecision
) -> None:
    report = compare(calibrated_demo.bundle, tmp_path, precision, target, samples=4)
    assert report.passed, [found.over_tolerance[:2] for found in report.comparisons]
    found = steps(report)
    expected = {"encoder engine", "classifier engine"}
    assert set(found) == (
        expected if precision == "fp32" else {*expected, "encoder graph", "classifier graph"}
    )
    names = [tensor.name for tensor in found["encoder engine"].tensors]
    assert names.index("cell1/input_conv") < names.index("cell1/t2/hidden_conv") < names.index("binarizer")
    assert [flips.iteration for flips in found["encoder engine"].iterations] == [1, 2, 3]
    assert found["classifier engine"].iterations == ()
    if precision == "fp32":
        assert found["encoder engine"].first_flipped_iteration is None
        assert found["encoder engine"].not_comparable == ()
    else:
        assert "normalise_cast_to_fp16" in found["encoder graph"].not_comparable


def test_a_changed_weight_is_located_and_reduced(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    bundle = plant(
        calibrated_demo.bundle,
        tmp_path / "bundle",
        "encoder",
        "int8",
        lambda model: change_weight(model, "cell2/hidden_conv", 3, -1),
    )
    report = compare(bundle, tmp_path, "int8")
    found = steps(report)
    first = found["encoder graph"].over_tolerance[0]
    assert (first.name, first.operator, first.channel) == ("cell2/t2/hidden_conv", "Conv", 3)
    assert first.input_error < found["encoder graph"].tolerance
    # The engine was built from the changed graph, so that it agrees with it.
    assert not found["encoder engine"].over_tolerance
    folder, store = tmp_path / "reduced", EngineStore(tmp_path / "engines")
    reduced = reduce_failure(bundle, "cpu", store, report, folder, precision="int8", samples=2)
    assert reduced is not None
    assert reduced.tensor == "cell2/t2/hidden_conv"
    model = ir.load(folder / "reduced.onnx")
    assert sum(node.op_type == "Conv" for node in model.graph) == 1
    finished = reproduced(folder)
    assert (finished.returncode, finished.stderr) == (1, "")
    assert "in channel 3" in finished.stdout
    replace_by_reference(folder)
    assert reproduced(folder).returncode == 0  # the script can pass


def replace_by_reference(folder: Path) -> None:
    """Make the reference of a reduced graph the graph that its script runs."""
    content = (folder / "reference.onnx").read_bytes()
    graph = ir.from_proto(onnx.load_from_string(content)).graph
    for name, values in (("inputs", graph.inputs), ("expected", graph.outputs)):
        arrays = np.load(folder / f"{name}.npz").values()
        typed = zip(values, arrays, strict=True)
        np.savez(folder / f"{name}.npz", **{str(value.name): array for value, array in typed})
    (folder / "reduced.onnx").write_bytes(content)


def test_a_difference_that_needs_the_trained_weights_is_not_written_with_random_ones(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    bundle = plant(
        calibrated_demo.bundle,
        tmp_path / "bundle",
        "encoder",
        "fp16",
        lambda model: change_weight(model, "cell2/hidden_conv", 3, -1),
    )
    options = ("--fp16", "--samples", 2, "--engines", tmp_path / "engines")
    outcome = run(
        "verify",
        bundle.path,
        "--target",
        "cpu",
        *options,
        "--reduce",
        tmp_path / "reduced",
        "--random-weights",
    )
    assert outcome.status == EngineError.exit_status
    assert "the difference needs the trained weights: omit --random-weights" in outcome.error_line
    assert not (tmp_path / "reduced").exists()


def test_a_clipped_range_is_located_and_reduced_with_random_weights(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    bundle = plant(
        calibrated_demo.bundle,
        tmp_path / "bundle",
        "encoder",
        "int8",
        lambda model: clip_activation(model, "cell1/t2/hidden_state"),
    )
    folder = tmp_path / "deep" / "reduced"
    outcome = run(
        *("verify", bundle.path, "--target", "cpu", "--int8", "--json", "--samples", 2),
        *("--engines", tmp_path / "engines", "--reduce", folder, "--random-weights"),
    )
    assert (outcome.status, outcome.stderr) == (1, "")
    report = json.loads(outcome.stdout)
    graph = next(
        found for found in report["comparisons"] if (found["stage"], found["level"]) == ("encoder", "graph")
    )
    over = [tensor["name"] for tensor in graph["tensors"] if tensor["error"] > graph["tolerance"]]
    assert over[0].startswith("cell1/t")
    assert over[0].endswith("/hidden_state after Q/DQ")
    assert report["reduced"]["tensor"] == over[0]
    assert report["reduced"]["has_random_weights"]
    assert reproduced(folder).returncode == 1
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.txt", "expected.npz", "inputs.npz", "reduced.onnx", "reference.onnx", "reproduce.py",
    ]  # fmt: skip


def test_nan_in_a_weight_is_located(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    bundle = plant(
        calibrated_demo.bundle,
        tmp_path / "bundle",
        "classifier",
        "fp16",
        lambda model: change_weight(model, "sampling/conv2", 1, np.nan),
    )
    outcome = run(
        *("verify", bundle.path, "--target", "cpu", "--fp16", "--layers", "--samples", 1),
        *("--engines", tmp_path / "engines"),
    )
    assert (outcome.status, outcome.stderr) == (1, "")
    assert (
        "classifier graph: sampling/conv2 (Conv) is the first tensor with NaN or infinity" in outcome.stdout
    )
    assert "encoder graph: " not in outcome.stdout


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="Arm has no saturating sums")
def test_saturated_int8_sums_are_located_and_reduced(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    """OpenVINO is told to use no VNNI, and the backend that the processor has it."""
    folder = tmp_path / "reduced"
    arguments = [
        *("verify", str(calibrated_demo.bundle.path), "--int8", "--target", "cpu-openvino", "--json"),
        *("--engines", str(tmp_path / "engines"), "--samples", "2", "--reduce", str(folder)),
    ]
    finished = subprocess.run(
        [sys.executable, "-c", SATURATING, *arguments],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (1, "")
    report = json.loads(finished.stdout)
    for found in report["comparisons"]:
        over = [tensor for tensor in found["tensors"] if tensor["error"] > found["tolerance"]]
        if found["level"] == "graph":
            assert over == []
        elif over:
            assert over[0]["operator"] == "Conv"
            assert over[0]["input_error"] < found["tolerance"]
    assert report["reduced"]["level"] == "engine"
    assert reproduced(folder).returncode == 1


def test_nothing_is_written_if_nothing_differs(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    outcome = run(
        *("verify", calibrated_demo.bundle.path, "--target", "cpu", "--fp32", "--samples", 1),
        *("--engines", tmp_path / "engines", "--reduce", tmp_path / "reduced"),
    )
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "nothing was written" in outcome.stdout
    assert not (tmp_path / "reduced").exists()


def test_a_folder_with_other_files_is_refused_at_once(tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    outcome = run("verify", tiny_bundle.path, "--target", "cpu", "--reduce", tmp_path)
    assert outcome.status == WrongUsageError.exit_status
    assert outcome.error_line.endswith("contains files that ccr-deploy did not write: choose another folder")
    outcome = run("verify", tiny_bundle.path, "--target", "cpu", "--reduce", tmp_path / "notes.txt")
    assert outcome.error_line.endswith("notes.txt: is a file: choose a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "options",
    [("--random-weights",), ("--layers", "--golden", "x"), ("--reduce", "out", "--gate", "min-cosine=1")],
    ids=lambda options: options[0],
)
def test_options_that_do_not_fit_are_refused(tiny_bundle: Bundle, options: tuple[str, ...]) -> None:
    assert run("verify", tiny_bundle.path, *options).status == WrongUsageError.exit_status


def test_the_reference_has_no_layers_to_compare(tiny_bundle: Bundle) -> None:
    outcome = run("verify", tiny_bundle.path, "--target", "pytorch", "--layers")
    assert outcome.status == WrongUsageError.exit_status
    assert "is the reference itself" in outcome.error_line


@pytest.mark.parametrize("schedule", ["layer-major", "plain"])
def test_other_schedules_have_the_same_names(
    calibrated_demo: CalibratedDemo, tmp_path: Path, schedule: str
) -> None:
    target = tmp_path / "scheduled.toml"
    text = f'description = "test"\nbackend = "onnxruntime"\nschedule = "{schedule}"\n[precision]\n'
    target.write_text(f'{text}encoder = "int8"\nclassifier = "int8"\n', encoding="utf-8")
    bundle = plant(
        calibrated_demo.bundle,
        tmp_path / "bundle",
        "encoder",
        "int8",
        lambda model: change_weight(model, "cell2/hidden_conv", 3, -1),
    )
    report = compare(bundle, tmp_path, "int8", str(target))
    assert steps(report)["encoder graph"].over_tolerance[0].name.startswith("cell2/t")
    assert [flips.iteration for flips in steps(report)["encoder graph"].iterations] == [1, 2, 3]
    store = EngineStore(tmp_path / "engines")
    reduced = reduce_failure(
        bundle, str(target), store, report, tmp_path / "reduced", precision="int8", samples=2
    )
    assert reduced is not None
    assert reproduced(tmp_path / "reduced").returncode == 1
