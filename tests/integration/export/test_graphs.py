"""Properties of every exported graph: valid, small, named, and independent of the exporting machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from msgspec import structs

import ccr_deploy
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeBackend
from ccr_deploy.core.stages import SCHEDULES
from ccr_deploy.export.stage_graph import stage_graph
from ccr_deploy.export.to_onnx import OPSET
from ccr_deploy.export.unroll import UNROLLED
from ccr_deploy.graphs.canonical_hash import canonical_graph_hash
from ccr_deploy.models.checkpoint import build_model, untrained_checkpoint
from ccr_deploy.models.presets import preset

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle

LAYER_AND_ITERATION = re.compile(r"cell[123]/(t[123]/)?[a-z0-9_/]+")
OUTSIDE_CELLS = re.compile(r"(normalise|stem|binarizer|pack)(/[a-z0-9_]+)*")


def graph_files(bundle: Bundle) -> dict[str, Path]:
    return {graph.file.name: bundle.file(graph.file) for graph in bundle.manifest.graphs}


def repeated_initializers(path: Path) -> list[str]:
    values = ir.load(path).graph.initializers.values()
    contents = Counter(
        (str(value.dtype), str(value.shape), hashlib.sha256(value.const_value.tobytes()).hexdigest())
        for value in values
        if value.const_value is not None
    )
    return [digest for (_, _, digest), count in contents.items() if count > 1]


def test_every_graph_passes_the_checker_at_opset_18(tiny_bundle: Bundle) -> None:
    for path in graph_files(tiny_bundle).values():
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert {entry.domain: entry.version for entry in model.opset_import} == {"": OPSET}


def test_every_graph_runs_batches_of_1_3_and_32(tiny_bundle: Bundle) -> None:
    generator = np.random.default_rng(0)
    for path in graph_files(tiny_bundle).values():
        with OnnxRuntimeBackend().load_graph(path) as runner:
            (spec,) = runner.inputs
            feed = generator.integers(0, 256, (32, *(size or 0 for size in spec.shape[1:])), dtype=np.uint8)
            (whole,) = runner.infer({spec.name: feed}).values()
            for batch in (1, 3):
                (part,) = runner.infer({spec.name: feed[:batch]}).values()
                np.testing.assert_allclose(part, whole[:batch], atol=1e-5)


def test_no_graph_computes_with_shapes(tiny_bundle: Bundle) -> None:
    """ONNX Runtime runs such operators on the CPU, also with a GPU, and the target cuda refuses them."""
    for path in graph_files(tiny_bundle).values():
        operators = {node.op_type for node in onnx.load(path).graph.node}
        assert operators.isdisjoint({"Shape", "Size", "NonZero", "Range"}), path


def test_engine_inputs_and_outputs_are_bytes(tiny_bundle: Bundle) -> None:
    interface = {
        graph.stage: [
            (value.name, str(value.dtype), str(value.shape))
            for value in (*model.graph.inputs, *model.graph.outputs)
        ]
        for graph in tiny_bundle.manifest.graphs
        for model in (ir.load(tiny_bundle.file(graph.file)),)
    }
    assert interface["encoder"] == [("image", "UINT8", "[batch,32,48,3]"), ("code", "UINT8", "[batch,12]")]
    assert interface["classifier"] == [("code", "UINT8", "[batch,12]"), ("logits", "FLOAT", "[batch,5]")]
    assert interface["baseline"] == [("image", "UINT8", "[batch,32,48,3]"), ("logits", "FLOAT", "[batch,7]")]


def test_no_graph_holds_two_equal_initializers(tiny_bundle: Bundle) -> None:
    for name, path in graph_files(tiny_bundle).items():
        assert repeated_initializers(path) == [], name


def test_names_contain_layer_and_iteration(tiny_bundle: Bundle) -> None:
    bundle = tiny_bundle
    for schedule in SCHEDULES:
        graph = ir.load(bundle.file(bundle.graph("encoder", "fp32", schedule).file)).graph
        names = [node.name for node in graph]
        assert len(set(names)) == len(names)
        convolutions = {node.name: node for node in graph if node.op_type == "Conv"}
        assert {"cell2/t3/hidden_conv", "cell1/t2/hidden_conv", "binarizer"} <= set(convolutions)
        for name in names:
            if UNROLLED[schedule].shares_repeated_work:  # otherwise its zero states belong to no layer
                assert LAYER_AND_ITERATION.fullmatch(name or "") or OUTSIDE_CELLS.fullmatch(name or ""), name
        for name, node in convolutions.items():
            assert node.outputs[0].name == name
            weight = node.inputs[1]
            assert weight is not None
            assert weight.name == re.sub(r"/t\d+", "", name or "") + "/weight"
    layer_major = ir.load(bundle.file(bundle.graph("encoder", "fp32", "layer-major").file)).graph
    assert sum(node.name == "cell3/input_conv" for node in layer_major) == 1


def test_work_is_hoisted_except_in_the_plain_schedule(tiny_bundle: Bundle) -> None:
    iterations = tiny_bundle.manifest.model.iterations
    hidden = 3 * (iterations - 1)
    expected = {
        "iteration-major": 1 + 2 * iterations + hidden + 1,  # first input, others, hidden, binarizer
        "layer-major": 3 + hidden + 1,
        "plain": iterations * (1 + 3 + 3) + 1,
    }
    for schedule, count in expected.items():
        graph = ir.load(tiny_bundle.file(tiny_bundle.graph("encoder", "fp32", schedule).file)).graph
        assert sum(node.op_type == "Conv" for node in graph) == count, schedule


def test_graphs_contain_no_paths_of_the_exporting_machine(tiny_bundle: Bundle) -> None:
    home = str(Path(ccr_deploy.__file__).parent.parent).encode()
    for path in graph_files(tiny_bundle).values():
        content = path.read_bytes()
        assert home not in content
        assert b"site-packages" not in content
        model = ir.load(path)
        assert not model.metadata_props
        assert all(not node.metadata_props for node in model.graph)


_EXPORT = """
import sys
from pathlib import Path
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import load_checkpoint
bundle = export_bundle(load_checkpoint(Path(sys.argv[1])), Path("bundle"), schedules=["layer-major"])
print(sys.modules["ccr_deploy"].__file__)
for graph in bundle.manifest.graphs:
    print(graph.graph_hash, graph.file.sha256)
"""


def test_the_same_weights_exported_from_two_folders_hash_the_same(
    tiny_checkpoint_file: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    """The tiny bundle was exported with the checkout's modules, this one with a copy of them."""
    shutil.copytree(Path(ccr_deploy.__file__).parent, tmp_path / "ccr_deploy")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    exported = subprocess.run(
        [sys.executable, "-c", _EXPORT, str(tiny_checkpoint_file)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    module, *hashes = exported.stdout.splitlines()
    assert Path(module).is_relative_to(tmp_path)
    records = (
        tiny_bundle.graph("encoder", "fp32", "layer-major"),
        tiny_bundle.graph("classifier", "fp32", None),
    )
    assert hashes == [f"{record.graph_hash} {record.file.sha256}" for record in records]


def test_the_graph_hash_covers_weights_and_attributes_but_not_inner_names(tiny_bundle: Bundle) -> None:
    record = tiny_bundle.graph("classifier", "fp32", None)
    path = tiny_bundle.file(record.file)
    assert canonical_graph_hash(ir.load(path)) == record.graph_hash

    renamed = ir.load(path)
    for node in renamed.graph:
        node.name = f"other/{node.name}"
    renamed.doc_string = "made elsewhere"
    assert canonical_graph_hash(renamed) == record.graph_hash

    weight = ir.load(path)
    value = weight.graph.initializers["fc/weight"]
    assert value.const_value is not None
    changed = value.const_value.numpy().copy()
    changed.flat[0] += 1e-6
    value.const_value = ir.tensor(changed)
    assert canonical_graph_hash(weight) != record.graph_hash

    attribute = ir.load(path)
    convolution = next(node for node in attribute.graph if node.op_type == "Conv")
    convolution.attributes["dilations"] = ir.AttrInt64s("dilations", [2, 2])
    assert canonical_graph_hash(attribute) != record.graph_hash


@pytest.mark.parametrize("schedule", ["iteration-major", "layer-major"])
def test_the_papers_encoder_has_its_weights_once(schedule: str, tmp_path: Path) -> None:
    checkpoint = untrained_checkpoint(preset("ccr-layer1"))
    chain = build_model(checkpoint)
    path = tmp_path / "encoder.onnx"
    config = structs.replace(checkpoint.config, iterations=4)
    ir.save(stage_graph(chain.encoder, config, checkpoint.preprocessing, schedule), path)
    parameter_bytes = 4 * sum(parameter.numel() for parameter in chain.encoder.parameters())
    assert parameter_bytes == 4 * 3_704_512
    assert path.stat().st_size <= 1.0125 * parameter_bytes  # 5 % at 16 iterations
    assert repeated_initializers(path) == []
