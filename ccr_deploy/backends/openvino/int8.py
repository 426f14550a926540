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

    import numpy.typing as npt

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
    """Halve the integers of an OpenVINO model's quantized weights and double their scales, in place."""
    from openvino import opset13

    for weights, dequantization in _quantized_weights(model):
        halved = opset13.constant(halved_integers(weights.get_data()))
        for reader in list(weights.output(0).get_target_inputs()):
            reader.replace_source_output(halved.output(0))
        scale = dequantization.input_value(1)
        two = np.array(2, dtype=scale.get_element_type().to_dtype())
        dequantization.input(1).replace_source_output(opset13.multiply(scale, two).output(0))


def halved_integers(integers: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Halve integers so that they have 7 bits: odd ones are rounded up and down in turn.

    In turn, the rounding errors of an output channel cancel, and the demo's encoder flips 0.31 % of its bits,
    as with 7-bit integers that are computed from the FP32 weights. Multiplied by 63/127, all odd integers
    would shrink, and it flips 0.47 %. `benchmarks.int8_graphs` measures this.

    Args:
        integers: the integers of a weight, ``int8 [output channels, ...]``.
    """
    rows = integers.reshape(len(integers), -1).astype(np.int16)
    odd = rows & 1
    upwards = np.cumsum(odd, axis=1) % 2 == 1
    halved = (rows + np.where(upwards, odd, -odd)) // 2
    return np.clip(halved, -63, 63).astype(np.int8).reshape(integers.shape)


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


def _quantized_weights(model: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    """Yield the Constant of each convolution's INT8 weights, and the Multiply by their scale."""
    found = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        multiply = node.input_value(1).get_node()
        if multiply.get_type_name() == "Convert":  # behind a pair that was kept in FP32
            multiply = multiply.input_value(0).get_node()
        if multiply.get_type_name() != "Multiply" or multiply.get_friendly_name() in found:
            continue
        weights = multiply.input_value(0).get_node()
        while weights.get_type_name() in {"Subtract", "Convert"}:  # the zero point, which is 0
            weights = weights.input_value(0).get_node()
        if weights.get_type_name() == "Constant" and weights.get_element_type().get_type_name() == "i8":
            found.add(multiply.get_friendly_name())  # all iterations share it
            yield weights, multiply
