"""Convert an FP32 graph to INT8 with a calibration table: Q/DQ pairs by Model Optimizer, FP16 between them.

Model Optimizer places the Q/DQ pairs, because TensorRT fuses the patterns that it produces. The ranges come
from the calibration table, which is passed as a calibration cache.

Weights are stored as INT8, behind a DequantizeLinear alone, which halves the files.

The graphs have opset 19, the first whose Q/DQ operators take FP16 scales; FP32 and FP16 graphs have opset 18.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ccr_deploy.errors import PrecisionError
from ccr_deploy.graphs.convolutions import convolutions, quantized_convolutions
from ccr_deploy.graphs.passes import StoreInt8WeightsPass, StripOriginPass, share_weights
from ccr_deploy.models.family import layer_of, quantized_operators
from ccr_deploy.quantization.fp16 import cast, fp16_nodes
from ccr_deploy.quantization.model_optimizer import converting, quantizer, restoring_onnxruntime
from ccr_deploy.quantization.quantizers import is_quantizable, quantized_activations

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ccr_deploy.core.stages import Stage
    from ccr_deploy.quantization.table import StageTable

_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})


def to_int8(
    stage: Stage, fp32: ir.Model, fp16: ir.Model, table: StageTable, high_precision: Collection[str]
) -> ir.Model:
    """Return the INT8 graph of a stage. Outside its Q/DQ pairs, it computes in the precisions of `fp16`.

    Args:
        stage: the stage of the graphs.
        fp32: the graph to quantize.
        fp16: the same graph in FP16.
        table: the ranges of the stage's activations.
        high_precision: the layers that are not quantized.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
        PrecisionError: if it cannot convert the graph, or does not quantize a tensor of the table.
    """
    quantized = without_quantization(quantize(stage, fp32, table), high_precision)
    low = fp16_nodes(fp16)
    excluded = [node.name or "" for node in fp32.graph if node.name not in low]
    converted = cast(quantized, excluded)
    StoreInt8WeightsPass()(converted)
    return converted


def quantize(stage: Stage, fp32: ir.Model, table: StageTable) -> ir.Model:
    """Insert Q/DQ pairs before every convolution: weights are quantized per channel, activations per tensor.

    Args:
        stage: the stage of the graph.
        fp32: the graph.
        table: the ranges of the stage's activations.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
        PrecisionError: if it cannot convert the graph, or does not quantize a tensor of the table.
    """
    run = quantizer()
    scales = {name: table.scale_of(signals) for name, signals in quantized_activations(fp32).items()}
    with converting("quantize this graph") as folder:
        ir.save(fp32, folder / "fp32.onnx")
        (folder / "ranges.cache").write_text(_calibration_cache(scales), encoding="ascii")
        with restoring_onnxruntime():
            run(
                str(folder / "fp32.onnx"),
                quantize_mode="int8",
                calibration_method="max",  # has no effect, because the cache has the scale of every tensor
                calibration_data=_random_input(fp32),
                calibration_cache_path=str(folder / "ranges.cache"),
                calibration_eps=["cpu"],
                high_precision_dtype="fp32",  # `to_int8` converts to FP16
                output_path=str(folder / "int8.onnx"),
                log_level="ERROR",
                op_types_to_quantize=quantized_operators(stage),
            )
        # Read the weights into memory: the file is deleted with its folder.
        result = ir.from_proto(ir.to_proto(ir.load(folder / "int8.onnx")))
    _merge_duplicates(result)
    # Model Optimizer reports no error if a tensor is missing in the cache, and does not quantize it.
    _check_convolutions(fp32, result)
    _check_scales(result, scales)
    return result


def without_quantization(quantized: ir.Model, layers: Collection[str]) -> ir.Model:
    """Return a copy of the graph without the Q/DQ pairs before some layers' convolutions and additions."""
    model = ir.from_proto(ir.to_proto(quantized))
    for node in model.graph:
        if node.op_type in {"Conv", "Add"} and layer_of(node.name or "") in layers:
            for index, value in enumerate(node.inputs):
                if value is not None:
                    node.replace_input_with(index, _unquantized(value))
    _merge_duplicates(model)
    return model


def activation_scales(model: ir.Model) -> Mapping[str, float]:
    """Return the scale of every quantized activation, by tensor."""
    return {
        str(node.inputs[0].name): float(_constant(node.inputs[1]))
        for node in model.graph
        if node.op_type == "QuantizeLinear"
        and node.inputs[0] is not None
        and not node.inputs[0].is_initializer()
    }


def _calibration_cache(scales: Mapping[str, float]) -> str:
    """Return TensorRT's calibration cache: a heading, then names and float32 scales in big-endian hex."""
    lines = [f"{name}: {struct.pack('!f', scale).hex()}" for name, scale in scales.items()]
    return "\n".join(["TRT-8501-EntropyCalibration2", *lines]) + "\n"


def _random_input(model: ir.Model) -> dict[str, np.ndarray]:
    """Return a random input: Model Optimizer runs the graph, although the cache has the ranges."""
    image = model.graph.inputs[0]
    assert image.shape is not None
    shape = [size if isinstance(size, int) else 1 for size in image.shape]
    pattern = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return {str(image.name): pattern}


def _merge_duplicates(model: ir.Model) -> None:
    """Merge the T copies of each weight and of its Q/DQ pair, and remove unused nodes.

    Model Optimizer copies shared weights once per iteration: an encoder of 15 MB becomes 113 MB at T = 8.
    Other repeated nodes are not merged: the plain schedule keeps them on purpose.
    """
    share_weights(model)
    first: dict[tuple[str, ...], ir.Node] = {}
    for node in model.graph:  # in topological order, so that Q nodes are merged before their DQ nodes
        if node.op_type not in _QDQ:
            continue
        same = first.setdefault((node.op_type, *(str(value and value.name) for value in node.inputs)), node)
        if same is not node:
            ir.convenience.replace_all_uses_with(node.outputs[0], same.outputs[0])
    common.RemoveUnusedNodesPass()(model)
    StripOriginPass()(model)


def _check_convolutions(fp32: ir.Model, quantized: ir.Model) -> None:
    expected = {node.name for node in convolutions(fp32) if is_quantizable(node)}
    if wrong := sorted(str(name) for name in expected ^ set(quantized_convolutions(quantized))):
        raise PrecisionError(
            f"Model Optimizer quantized other convolutions than expected: {', '.join(wrong[:3])}"
        )


def _check_scales(model: ir.Model, scales: Mapping[str, float]) -> None:
    """Raise a PrecisionError if the scale of a quantized activation is not the table's."""
    # The other direction is not checked: a summand beside a small convolution may stay unquantized.
    for name, scale in activation_scales(model).items():
        if name not in scales:
            raise PrecisionError(f"tensor {name}: quantized by Model Optimizer, but not in the table")
        if not np.isclose(scale, scales[name], rtol=1e-6):
            raise PrecisionError(
                f"tensor {name}: scale {scale:g} in the graph, {scales[name]:g} in the table"
            )


def _unquantized(value: ir.Value) -> ir.Value:
    """Return the value before a Q/DQ pair, or the value itself if there is no pair."""
    source = value
    while (producer := source.producer()) is not None and producer.op_type in _QDQ:
        assert producer.inputs[0] is not None
        source = producer.inputs[0]
    return source


def _constant(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()
