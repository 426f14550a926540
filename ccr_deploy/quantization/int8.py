"""FP32 graph and calibration table to INT8 graph: Q/DQ pairs by Model Optimizer, FP16 between them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ccr_deploy.errors import PrecisionError
from ccr_deploy.graphs.convolutions import convolutions, quantized_convolutions
from ccr_deploy.graphs.passes import StripOriginPass, share_weights
from ccr_deploy.models.family import layer_of, quantized_operators
from ccr_deploy.quantization.fp16 import cast, fp16_nodes
from ccr_deploy.quantization.model_optimizer import converting, quantizer, unpatched_afterwards
from ccr_deploy.quantization.quantizers import is_quantizable, quantized_activations

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ccr_deploy.core.stages import Stage
    from ccr_deploy.quantization.table import StageTable

_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})


def to_int8(
    stage: Stage, fp32: ir.Model, fp16: ir.Model, table: StageTable, high_precision: Collection[str]
) -> ir.Model:
    """Return the INT8 graph of a stage, in which FP16 is what `fp16` computes in FP16.

    Args:
        stage: which one the graphs are of.
        fp32: the graph that is quantized.
        fp16: the same in FP16.
        table: the ranges of the stage's activations.
        high_precision: the layers that are not quantized.

    Raises:
        MissingExtraError: Model Optimizer is not installed.
        PrecisionError: it cannot convert the graph, or left out a tensor that it was given a scale for.
    """
    quantized = without_quantization(quantize(stage, fp32, table), high_precision)
    low = fp16_nodes(fp16)
    kept = [node.name or "" for node in fp32.graph if node.name not in low]
    return cast(quantized, kept, feeds=None)


def quantize(stage: Stage, fp32: ir.Model, table: StageTable) -> ir.Model:
    """Put Q/DQ pairs around every convolution: weights per channel, activations per tensor.

    Args:
        stage: which one the graph is of.
        fp32: the graph.
        table: the ranges of the stage's activations.

    Raises:
        MissingExtraError: Model Optimizer is not installed.
        PrecisionError: it cannot convert the graph, or left out a tensor that it was given a scale for.
    """
    run = quantizer()
    scales = {name: table.scale_of(signals) for name, signals in quantized_activations(fp32).items()}
    with converting("quantize this graph") as folder:
        ir.save(fp32, folder / "fp32.onnx")
        (folder / "ranges.cache").write_text(_calibration_cache(scales), encoding="ascii")
        with unpatched_afterwards():
            run(
                str(folder / "fp32.onnx"),
                quantize_mode="int8",
                calibration_method="max",
                calibration_data=_any_input(fp32),
                calibration_cache_path=str(folder / "ranges.cache"),
                calibration_eps=["cpu"],
                high_precision_dtype="fp32",
                output_path=str(folder / "int8.onnx"),
                log_level="ERROR",
                op_types_to_quantize=quantized_operators(stage),
            )
        # Read whole: the file goes with the folder.
        result = ir.from_proto(ir.to_proto(ir.load(folder / "int8.onnx")))
    _tidy(result)
    _check_convolutions(fp32, result)
    _check_scales(result, scales)
    return result


def without_quantization(quantized: ir.Model, layers: Collection[str]) -> ir.Model:
    """A copy of the graph in which the convolutions and residual additions of some layers read plain FP32."""
    model = ir.from_proto(ir.to_proto(quantized))
    for node in model.graph:
        if node.op_type in {"Conv", "Add"} and layer_of(node.name or "") in layers:
            for index, value in enumerate(node.inputs):
                if value is not None:
                    node.replace_input_with(index, _unquantized(value))
    _tidy(model)
    return model


def activation_scales(model: ir.Model) -> Mapping[str, float]:
    """The scale of every quantized activation, by tensor."""
    return {
        str(node.inputs[0].name): float(_constant(node.inputs[1]))
        for node in model.graph
        if node.op_type == "QuantizeLinear"
        and node.inputs[0] is not None
        and not node.inputs[0].is_initializer()
    }


def _calibration_cache(scales: Mapping[str, float]) -> str:
    """TensorRT's text format: a heading, then a tensor's name and its scale as big-endian hexadecimal."""
    lines = [f"{name}: {struct.pack('!f', scale).hex()}" for name, scale in scales.items()]
    return "\n".join(["TRT-8501-EntropyCalibration2", *lines]) + "\n"


def _any_input(model: ir.Model) -> dict[str, np.ndarray]:
    """One input of any content: Model Optimizer wants to run the graph, though the table has all ranges."""
    image = model.graph.inputs[0]
    assert image.shape is not None
    shape = [size if isinstance(size, int) else 1 for size in image.shape]
    pattern = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return {str(image.name): pattern}


def _tidy(model: ir.Model) -> None:
    """Makes the T copies of each weight and of its Q/DQ pair one again; other repeated work stays."""
    share_weights(model)
    first: dict[tuple[str, ...], ir.Node] = {}
    for node in model.graph:  # in an order in which a Q comes before its DQ
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
            f"Model Optimizer did not quantize the convolutions that it should: {', '.join(wrong[:3])}"
        )


def _check_scales(model: ir.Model, scales: Mapping[str, float]) -> None:
    """Every quantized activation has the table's scale; a summand beside small convolutions may have none."""
    for name, scale in activation_scales(model).items():
        if name not in scales:
            raise PrecisionError(f"tensor {name}: quantized by Model Optimizer, but not in the table")
        if not np.isclose(scale, scales[name], rtol=1e-6):
            raise PrecisionError(
                f"tensor {name}: scale {scale:g} in the graph, {scales[name]:g} in the table"
            )


def _unquantized(value: ir.Value) -> ir.Value:
    """What a Q/DQ pair was put behind; the value itself where there is none."""
    source = value
    while (producer := source.producer()) is not None and producer.op_type in _QDQ:
        assert producer.inputs[0] is not None
        source = producer.inputs[0]
    return source


def _constant(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()
