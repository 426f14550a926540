"""FP16 and INT8 graphs of a trained model: their content, their results, and errors."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, get_args

import numpy as np
import onnx_ir as ir
import pytest
from msgspec import structs

from ccr_deploy.backends.openvino.cpu import OpenVinoBackend
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.metrics import flipped_bits
from ccr_deploy.core.precisions import PRECISIONS, Precision
from ccr_deploy.core.stages import DEFAULT_SCHEDULE, SCHEDULES
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.errors import CalibrationError, EngineError, PrecisionError, WrongUsageError
from ccr_deploy.export.to_onnx import OPSET, to_onnx
from ccr_deploy.export.uint8_io import EncoderGraph
from ccr_deploy.export.unroll import unroll
from ccr_deploy.graphs.convolutions import convolutions, quantized_convolutions
from ccr_deploy.models.checkpoint import build_model, untrained_checkpoint
from ccr_deploy.models.family import HIGH_PRECISION_LAYERS, layer_of, signal_of
from ccr_deploy.models.presets import preset
from ccr_deploy.quantization.emulation import emulate
from ccr_deploy.quantization.fp16 import cast, fp16_nodes
from ccr_deploy.quantization.int8 import (
    activation_scales,
    quantize,
    to_int8,
    without_quantization,
)
from ccr_deploy.quantization.quantizers import quantized_activations
from ccr_deploy.quantization.ranges import RangeCollector
from ccr_deploy.quantization.recipe import CalibrationRecipe
from ccr_deploy.quantization.table import StageTable, TensorRange, read_table
from ccr_deploy.workflow.calibrate import calibrate_bundle, calibrate_from_table
from ccr_deploy.workflow.graphs import graph_runner, load_model, model_runner

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.engines.store import EngineStore
    from tests.support.demo import CalibratedDemo


def graphs(bundle: Bundle, stage: str, precision: str) -> list[GraphRecord]:
    found = [
        graph for graph in bundle.manifest.graphs if (graph.stage, graph.precision) == (stage, precision)
    ]
    assert found
    return found


def one_graph(bundle: Bundle, stage: str, precision: str, schedule: str = "iteration-major") -> ir.Model:
    (graph,) = (graph for graph in graphs(bundle, stage, precision) if graph.schedule in {schedule, None})
    return load_model(bundle, graph)


def flipped_percent(codes: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    return 100 * float(flipped_bits(codes, other).mean())


def codes_of(model: ir.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    with model_runner(emulate(model, "fp16")) as runner:
        return runner.infer({"image": images})["code"].astype(np.uint8)


def test_every_schedule_has_every_precision(calibrated_demo: CalibratedDemo) -> None:
    count = Counter((graph.stage, graph.precision) for graph in calibrated_demo.bundle.manifest.graphs)
    assert count == {
        (stage, precision): number
        for stage, number in (("encoder", 3), ("classifier", 1))
        for precision in get_args(Precision)
    }


def test_no_graph_holds_two_weights_of_equal_content(calibrated_demo: CalibratedDemo) -> None:
    for graph in calibrated_demo.bundle.manifest.graphs:
        values = load_model(calibrated_demo.bundle, graph).graph.initializers.values()
        contents = Counter(
            (value.dtype, tuple(value.shape or ()), value.const_value.tobytes())
            for value in values
            if value.const_value is not None
        )
        assert max(contents.values()) == 1, graph.file.name


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_any_batch_runs_on_every_graph(calibrated_demo: CalibratedDemo, batch: int) -> None:
    generator = np.random.default_rng(batch)
    for graph in calibrated_demo.bundle.manifest.graphs:
        with graph_runner(calibrated_demo.bundle, graph) as runner:
            (spec,) = runner.inputs
            shape = (batch, *(size or batch for size in spec.shape[1:]))
            (output,) = runner.infer({spec.name: generator.integers(0, 256, shape, dtype=np.uint8)}).values()
            assert len(output) == batch


def test_fp16_and_int8_leave_inputs_and_outputs_unchanged(calibrated_demo: CalibratedDemo) -> None:
    for stage in ("encoder", "classifier"):
        fp32 = one_graph(calibrated_demo.bundle, stage, "fp32").graph
        for precision in ("fp16", "int8"):
            other = one_graph(calibrated_demo.bundle, stage, precision).graph
            for before, after in zip(
                (*fp32.inputs, *fp32.outputs), (*other.inputs, *other.outputs), strict=True
            ):
                assert (before.name, before.dtype, before.shape) == (after.name, after.dtype, after.shape)


def test_fp16_graphs_compute_all_except_uint8_io_in_fp16(calibrated_demo: CalibratedDemo) -> None:
    for stage in ("encoder", "classifier"):
        model = one_graph(calibrated_demo.bundle, stage, "fp16")
        assert model.opset_imports[""] == OPSET
        low = fp16_nodes(model)
        assert {node.name for node in convolutions(model)} <= low
        assert not [name for name in low if name.partition("/")[0] in {"normalise", "pack", "unpack"}]


def test_int8_graphs_quantize_every_convolution_except_excluded_ones(calibrated_demo: CalibratedDemo) -> None:
    for graph in calibrated_demo.bundle.manifest.graphs:
        if graph.precision != "int8":
            continue
        model = load_model(calibrated_demo.bundle, graph)
        expected = {
            node.name
            for node in convolutions(model)
            if layer_of(node.name or "") not in HIGH_PRECISION_LAYERS
        }
        assert set(quantized_convolutions(model)) == expected
        assert model.opset_imports[""] == 19  # the first whose Q/DQ operators take FP16 scales
        assert any(node.op_type == "Cast" for node in model.graph)


def test_weights_have_a_scale_per_channel_and_activations_one(calibrated_demo: CalibratedDemo) -> None:
    model = one_graph(calibrated_demo.bundle, "encoder", "int8")
    for node in model.graph:
        if node.op_type == "DequantizeLinear":
            source, scale = node.inputs[0], node.inputs[1]
            assert source is not None
            assert scale is not None
            channels = [source.shape[0]] if source.is_initializer() and source.shape else []
            assert list(scale.shape or ()) == channels


def test_weights_are_stored_as_the_integers_that_onnxruntime_quantizes_them_to(
    calibrated_demo: CalibratedDemo, real_crops: npt.NDArray[np.uint8]
) -> None:
    """So results stay equal bit by bit, although the file is half as large."""
    bundle, table = calibrated_demo.bundle, calibrated_demo.calibration.table.stages["encoder"]
    fp32, fp16 = (one_graph(bundle, "encoder", name) for name in ("fp32", "fp16"))
    quantized = quantize("encoder", fp32, table)
    low = fp16_nodes(fp16)
    before = cast(quantized, [node.name or "" for node in fp32.graph if node.name not in low])
    stored = to_int8("encoder", fp32, fp16, table, ())
    integers = {
        str(value.name)
        for value in stored.graph.initializers.values()
        if str(value.name).endswith("_quantized")
    }
    assert len(integers) == len({node.inputs[1] for node in convolutions(before)})
    assert not any(
        node.op_type == "QuantizeLinear" and node.inputs[0] is not None and node.inputs[0].is_initializer()
        for node in stored.graph
    )
    sizes = [len(ir.to_proto(model).SerializeToString()) for model in (stored, before)]
    assert sizes[0] < 0.7 * sizes[1]
    np.testing.assert_array_equal(*(codes_of(model, real_crops[::20]) for model in (stored, before)))


def test_a_scale_is_the_largest_range_of_the_table_in_every_schedule(
    calibrated_demo: CalibratedDemo,
) -> None:
    table = calibrated_demo.calibration.table.stages["encoder"]
    for graph in graphs(calibrated_demo.bundle, "encoder", "int8"):
        signals = quantized_activations(
            one_graph(calibrated_demo.bundle, "encoder", "fp32", str(graph.schedule))
        )
        for name, scale in activation_scales(load_model(calibrated_demo.bundle, graph)).items():
            # FP16 rounds a scale to 11 bits.
            signal = signals[name.removesuffix("_cast_to_fp16")]
            assert scale == pytest.approx(table.scale_of(signal), rel=2**-10), (graph.file.name, name)


def test_a_residual_addition_reads_its_other_summand_quantized(calibrated_demo: CalibratedDemo) -> None:
    scales = activation_scales(one_graph(calibrated_demo.bundle, "classifier", "int8"))
    assert "layer4/0/downsample/0" in scales
    assert "reshape" not in scales  # the last linear layer is not quantized


def test_all_schedules_give_the_same_results_in_int8(
    calibrated_demo: CalibratedDemo, real_crops: npt.NDArray[np.uint8]
) -> None:
    images = real_crops[::20]
    first, *others = (
        codes_of(load_model(calibrated_demo.bundle, graph), images)
        for graph in graphs(calibrated_demo.bundle, "encoder", "int8")
    )
    for codes in others:
        assert flipped_percent(first, codes) < 0.1


def test_accuracy_is_measured_on_held_out_images(calibrated_demo: CalibratedDemo) -> None:
    calibration = calibrated_demo.bundle.manifest.calibration
    assert calibration is not None
    assert [entry.precision for entry in calibration.accuracies] == [*PRECISIONS]
    by_name = {entry.precision: entry for entry in calibration.accuracies}
    fp32, fp16, bf16, int8 = (by_name[name] for name in ("fp32", "fp16", "bf16", "int8"))
    assert {entry.images for entry in calibration.accuracies} == {320}
    assert calibration.images == str(calibrated_demo.folder / "images")
    assert fp32.flipped_bits == 0
    assert 0 < fp16.flipped_bits < bf16.flipped_bits < int8.flipped_bits
    assert int8.flipped_percent < 2
    assert int8.same_top1_percent > 95
    assert all(abs(entry.top1_loss_points or 0) <= 2 for entry in calibration.accuracies)


def test_without_a_folder_of_their_own_held_out_images_are_of_other_groups(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    copied = copy_of(calibrated_demo.bundle, tmp_path)
    images = calibrated_demo.folder / "images"
    result = calibrate_bundle(copied, images, CalibrationRecipe(samples=100, method="minmax"))
    record = result.bundle.manifest.calibration
    assert record is not None
    groups = {path.parent for path in images.rglob("*.png")}
    assert 0 < record.accuracies[0].groups < len(groups)
    assert record.images.endswith("groups not used for calibration")


def test_one_quantized_layer_costs_less_than_all(
    calibrated_demo: CalibratedDemo, real_crops: npt.NDArray[np.uint8]
) -> None:
    layers = calibrated_demo.calibration.sensitivity
    assert [layer.layer for layer in layers if layer.stage == "classifier"]
    encoder = [layer for layer in layers if layer.stage == "encoder"]
    assert {layer.layer for layer in encoder} == {
        "stem", "binarizer",
        "cell1/hidden_conv", "cell2/input_conv", "cell2/hidden_conv", "cell3/input_conv", "cell3/hidden_conv",
    }  # fmt: skip
    model = one_graph(calibrated_demo.bundle, "encoder", "fp32")
    table = calibrated_demo.calibration.table.stages["encoder"]
    with model_runner(quantize("encoder", model, table)) as runner:
        codes = runner.infer({"image": real_crops[::10]})["code"].astype(np.uint8)
    together = flipped_percent(codes_of(model, real_crops[::10]), codes)
    # Twice as much is allowed, because it is measured on other images.
    assert all(0 < (layer.flipped_percent or 0) < 2 * together for layer in encoder)
    assert encoder[0].flipped_percent == max(layer.flipped_percent or 0 for layer in encoder)


def test_excluded_layers_compute_as_in_fp32(
    calibrated_demo: CalibratedDemo, real_crops: npt.NDArray[np.uint8]
) -> None:
    model = one_graph(calibrated_demo.bundle, "encoder", "fp32")
    quantized = quantize("encoder", model, calibrated_demo.calibration.table.stages["encoder"])
    everything = {layer_of(node.name or "") for node in convolutions(model)}
    untouched = without_quantization(quantized, everything)
    assert quantized_convolutions(untouched) == []
    np.testing.assert_array_equal(codes_of(untouched, real_crops[:16]), codes_of(model, real_crops[:16]))


def test_the_same_table_makes_the_same_graphs_without_any_image(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    copied = copy_of(calibrated_demo.bundle, tmp_path)
    path = tmp_path / "ranges.json"
    path.write_text(calibrated_demo.calibration.table.to_json())
    result = calibrate_from_table(copied, read_table(path), path, CalibrationRecipe())
    assert result.bundle.manifest == calibrated_demo.bundle.manifest
    assert Bundle.open(copied.path).manifest == calibrated_demo.bundle.manifest


def test_other_layers_in_high_precision_make_other_graphs_and_void_the_record(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    copied = copy_of(calibrated_demo.bundle, tmp_path)
    table = calibrated_demo.calibration.table
    recipe = CalibrationRecipe(keep_high_precision=("stem",))
    result = calibrate_from_table(copied, table, tmp_path / "ranges.json", recipe)
    record = result.bundle.manifest.calibration
    assert record is not None
    assert (record.high_precision, record.accuracies) == (("stem",), ())
    assert "binarizer" in quantized_convolutions(one_graph(result.bundle, "encoder", "int8"))


def test_a_layer_that_does_not_exist_cannot_be_kept(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    recipe = CalibrationRecipe(keep_high_precision=("stem", "steam"))
    table = calibrated_demo.calibration.table
    with pytest.raises(WrongUsageError, match=r"unknown layer 'steam'.*choose from stem, cell2/input_conv"):
        calibrate_from_table(calibrated_demo.bundle, table, tmp_path / "ranges.json", recipe)


def test_a_table_of_other_pixels_is_refused(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    table = calibrated_demo.calibration.table
    other = structs.replace(table, preprocessing=structs.replace(table.preprocessing, resize_filter="box"))
    with pytest.raises(CalibrationError, match=r"ranges\.json: field preprocessing"):
        calibrate_from_table(calibrated_demo.bundle, other, tmp_path / "ranges.json", CalibrationRecipe())


def test_a_failed_calibration_leaves_the_bundle_as_it_was(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    copied = copy_of(calibrated_demo.bundle, tmp_path)
    before = {path.name: path.read_bytes() for path in copied.path.iterdir()}
    with pytest.raises(
        CalibrationError, match="has 256 images, 300 are needed: add images, or use --samples 256"
    ):
        calibrate_bundle(copied, calibrated_demo.images, CalibrationRecipe(samples=300))
    assert {path.name: path.read_bytes() for path in copied.path.iterdir()} == before


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "tensor cell1/t1/hidden_state: NaN or infinite"),
        (0, "tensor cell1/t1/hidden_state: all values are 0"),
    ],
)
def test_a_tensor_without_a_range_is_named(
    calibrated_demo: CalibratedDemo, method: str, value: float, message: str
) -> None:
    model = one_graph(calibrated_demo.bundle, "encoder", "fp32")
    weight = model.graph.initializers["cell1/input_conv/weight"]
    assert weight.const_value is not None
    damaged = np.full_like(weight.const_value.numpy(), value)
    weight.const_value = ir.tensor(damaged, name="cell1/input_conv/weight")
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)

    def find_ranges() -> None:
        with RangeCollector(model, method, 99.9) as collector:
            collector.add(images)
            collector.ranges()

    with pytest.raises(CalibrationError, match=message):
        find_ranges()


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_ranges_grow_with_every_batch_and_batches_are_not_kept(
    calibrated_demo: CalibratedDemo, method: str, real_crops: npt.NDArray[np.uint8]
) -> None:
    model = one_graph(calibrated_demo.bundle, "encoder", "fp32")
    with RangeCollector(model, method, 100) as collector:
        collector.add(real_crops[:8])
        few = collector.ranges()
        for start in range(0, 320, 32):
            collector.add(real_crops[start : start + 32])
        many = collector.ranges()
        assert collector._calibrator.intermediate_outputs == []
    assert few.keys() == many.keys() == quantized_activations(model).keys()
    assert {signal_of(name) for name in few} >= {"normalise", "cell1/hidden_state"}
    if method == "minmax":  # other methods may find a smaller range with more images
        for name, found in few.items():
            assert many[name].high >= found.high - 1e-6
            assert many[name].low <= found.low + 1e-6


@pytest.mark.parametrize(
    ("target", "precision"), [("cpu-openvino", "fp32"), ("cpu", "fp32"), ("cpu", "int8")]
)
def test_cpu_engines_give_the_results_of_their_graphs(
    calibrated_demo: CalibratedDemo,
    store: EngineStore,
    target: str,
    precision: str,
    real_crops: npt.NDArray[np.uint8],
) -> None:
    """OpenVINO's INT8 depends on the processor: see test_int8_on_cpus."""
    factory = EngineFactory(calibrated_demo.bundle, target, store, stage_precisions(precision))
    images = real_crops[::20]
    with factory.load(factory.build("encoder")[0]) as engine:
        codes = engine.infer({"image": images})["code"].astype(np.uint8)
    expected = codes_of(load_model(calibrated_demo.bundle, factory.graph_record("encoder")), images)
    assert flipped_percent(codes, expected) < 0.2
    with (
        factory.load(factory.build("classifier")[0]) as engine,
        graph_runner(calibrated_demo.bundle, factory.graph_record("classifier")) as graph,
    ):
        logits, same = (runner.infer({"code": expected})["logits"] for runner in (engine, graph))
    np.testing.assert_allclose(logits, same, atol=0.05)


def test_openvino_computes_in_bf16_if_the_processor_supports_it(
    calibrated_demo: CalibratedDemo, store: EngineStore, real_crops: npt.NDArray[np.uint8]
) -> None:
    if "bf16" not in OpenVinoBackend().native_precisions():
        pytest.skip("this processor has no BF16")
    factory = EngineFactory(calibrated_demo.bundle, "cpu-openvino", store, stage_precisions("bf16"))
    with factory.load(factory.build("encoder")[0]) as engine:
        codes = engine.infer({"image": real_crops[::20]})["code"].astype(np.uint8)
    expected = codes_of(one_graph(calibrated_demo.bundle, "encoder", "fp32"), real_crops[::20])
    assert 0 < flipped_percent(codes, expected) < 2


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != DEFAULT_SCHEDULE])
def test_openvino_builds_no_int8_engine_with_other_results(
    calibrated_demo: CalibratedDemo, store: EngineStore, schedule: str, real_crops: npt.NDArray[np.uint8]
) -> None:
    """Its transformations are known to break layer-major; a later version may fix it."""
    factory = EngineFactory(calibrated_demo.bundle, "cpu-openvino", store, stage_precisions("int8"))
    refused = None
    try:
        engine, _ = factory.build("encoder", schedule)
    except EngineError as error:
        refused = str(error)
    if refused is not None:
        wrong = (
            f" computes this INT8 {schedule} encoder wrongly: its activations deviate from the graph's by "
        )
        assert wrong in refused
        assert "use the schedule iteration-major, FP32, or another version" in refused
        return
    with factory.load(engine) as runner:
        codes = runner.infer({"image": real_crops[::20]})["code"].astype(np.uint8)
    expected = codes_of(one_graph(calibrated_demo.bundle, "encoder", "int8", schedule), real_crops[::20])
    assert flipped_percent(codes, expected) < 1


def test_converters_refuse_an_invalid_graph() -> None:
    broken = ir.Model(ir.Graph([], [], nodes=[ir.node("Nonsense", [])], opset_imports={"": 18}), ir_version=8)
    with pytest.raises(PrecisionError, match="Model Optimizer cannot convert this graph to FP16"):
        cast(broken, [])


def test_more_iterations_add_nodes_but_no_weights() -> None:
    """At a small image size, because only weights matter."""
    sizes = {"fp16": [], "int8": []}
    for iterations in (2, 5):
        config = structs.replace(preset("ccr-layer1"), iterations=iterations, image_height=32, image_width=32)
        checkpoint = untrained_checkpoint(config)
        chain = build_model(checkpoint)
        encoder = EncoderGraph(unroll(chain.encoder, iterations, "iteration-major"), checkpoint.preprocessing)
        example = build_example(32)
        fp32 = to_onnx(encoder, example, "image", "code")
        fp16 = cast(fp32, [])
        tensors = {name: TensorRange(low=-1, high=1, method="minmax") for name in quantized_activations(fp32)}
        table = StageTable(tensors=tensors)
        int8 = to_int8("encoder", fp32, fp16, table, HIGH_PRECISION_LAYERS)
        sizes["fp16"].append(len(ir.to_proto(fp16).SerializeToString()))
        sizes["int8"].append(len(ir.to_proto(int8).SerializeToString()))
    for small, large in sizes.values():
        assert large <= 1.02 * small  # a copy of the weights for each iteration would add 150 %


def build_example(size: int):
    import torch

    return torch.zeros(2, size, size, 3, dtype=torch.uint8)


def copy_of(bundle: Bundle, folder: Path) -> Bundle:
    shutil.copytree(bundle.path, folder / "copy")
    return Bundle.open(folder / "copy")


def test_quantization_does_not_affect_a_later_calibration(
    calibrated_demo: CalibratedDemo, real_crops: npt.NDArray[np.uint8]
) -> None:
    """Model Optimizer patches methods of ONNX Runtime's calibrators."""
    from onnxruntime.quantization import calibrate

    before = dict(vars(calibrate.MinMaxCalibrater)), dict(vars(calibrate.CalibraterBase))
    model = one_graph(calibrated_demo.bundle, "encoder", "fp32")
    quantize("encoder", model, calibrated_demo.calibration.table.stages["encoder"])
    assert (dict(vars(calibrate.MinMaxCalibrater)), dict(vars(calibrate.CalibraterBase))) == before
