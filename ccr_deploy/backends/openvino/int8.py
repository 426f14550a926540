"""Changes to an INT8 graph before OpenVINO compiles it.

Weights are limited to 7 bits if the CPU requires it (`ccr_deploy.backends.int8_weights`).

A work-around avoids a defect of OpenVINO's low-precision transformations, observed with OpenVINO 2026.4: if a
Split and an Add read the output of a quantized convolution (the first cell's gates, which all iterations
share), the scale is applied twice and the code is noise. A Clamp behind the convolution, too wide to change a
value, prevents this at no cost. Graphs of other schedules may also be compiled wrongly, depending on the
instruction set, so that every engine is checked (`ccr_deploy.backends.int8_agreement`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = 60000.0
"""A limit below FP16's largest number and above every activation that AutoCast converts to FP16."""


def read_int8_model(core: Any, graph: object, weight_bits: Literal[7, 8]) -> Any:  # noqa: ANN401 -- no types
    """Read an INT8 graph, and limit its weights to 7 bits if asked to.

    Args:
        core: OpenVINO's Core.
        graph: the ONNX file.
        weight_bits: the number of bits of the weights; 8 leaves them unchanged.
    """
    model = core.read_model(graph)
    if weight_bits == 7:
        limit_weights_to_7_bits(model)
    return model


def limit_weights_to_7_bits(model: Any) -> None:  # noqa: ANN401
    """Multiply the scales of an OpenVINO model's weight quantizers by 127/63, in place."""
    from openvino import Type, opset13

    for quantizer in _weight_quantizers(model):
        for node in list(_dequantizations(quantizer)):
            scale = node.input_value(1)
            factor = np.array(127 / 63, dtype=scale.get_element_type().to_dtype())
            larger = opset13.multiply(scale, factor)
            node.input(1).replace_source_output(larger.output(0))
        # The quantizer's limits must grow by the same factor. FP16 scales are rounded, so that the factor is
        # computed from the rounded scales and not taken as 127/63.
        growth = opset13.divide(opset13.convert(larger, Type.f32), opset13.convert(scale, Type.f32))
        for index in (1, 2):
            limit = opset13.multiply(quantizer.input_value(index), growth)
            quantizer.input(index).replace_source_output(limit.output(0))


def separate_shared_scales(model: Any) -> None:  # noqa: ANN401
    """Insert a Clamp behind every convolution of an OpenVINO model that has several readers."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        readers = list(node.output(0).get_target_inputs())
        if len(readers) > 1:
            clamped = opset13.clamp(node.output(0), -LARGE, LARGE)
            for reader in readers:
                reader.replace_source_output(clamped.output(0))


def expose_activations(model: Any) -> None:  # noqa: ANN401
    """Add the pre-binarization activations to an encoder's outputs; leave a classifier unchanged."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "GreaterEqual":  # a bit is 1 if the activation is >= 0
            model.add_outputs([node.input_value(0)])
            return


def _weight_quantizers(model: Any) -> Iterator[Any]:  # noqa: ANN401
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            source = node.input_value(0).get_node()
            if source.get_type_name() == "Convert":  # FP16 weights, quantized in FP32
                source = source.input_value(0).get_node()
            if source.get_type_name() == "Constant":
                yield node


def _dequantizations(quantizer: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield the Multiply nodes behind a quantizer, past conversions and the subtraction of a zero point."""
    for reader in quantizer.output(0).get_target_inputs():
        node = reader.get_node()
        if node.get_type_name() == "Multiply":
            yield node
        else:
            yield from _dequantizations(node)
