"""One convolution for each gate of a ConvLSTM cell, before OpenVINO compiles a graph.

A graph computes the four gates of a cell by one convolution and splits its output, which is best on a GPU. On
a CPU, OpenVINO copies the parts of a split, and cannot fuse what follows it into the convolution. With a
convolution for each gate it fuses the sum of the input and hidden convolutions and the Sigmoid or Tanh, and
the forget gate of the first iteration, which nothing reads, is not computed. `benchmarks.where_time_goes`
measures what this saves. Weights may be quantized: their integers, scales and zero points are divided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


def separate_gates(model: Any) -> None:  # noqa: ANN401 -- the library has no types
    """Replace the convolutions whose output is split by one for each part, in an OpenVINO model in place.

    A split is replaced if its input is a convolution, or a sum of two, whose weights are computed from
    constants.
    """
    parts: dict[tuple[str, int, int], Any] = {}
    for split in model.get_ordered_ops():
        if split.get_type_name() == "Split" and _is_separable(split):
            for number in range(split.get_output_size()):
                readers = [
                    reader
                    for reader in split.output(number).get_target_inputs()
                    if reader.get_node().get_type_name() != "Result"  # an output keeps its name
                ]
                if readers:
                    part = _part(split.input_value(0).get_node(), number, split.get_output_size(), parts)
                    for reader in readers:
                        reader.replace_source_output(part.output(0))


def _is_separable(split: Any) -> bool:  # noqa: ANN401
    """Return whether a split divides the channels of a convolution or of a sum of convolutions."""

    def is_convolution(node: Any) -> bool:  # noqa: ANN401
        if node.get_type_name() != "Convolution":
            return False
        weights = node.input_value(1).get_node()
        return _is_divisible(weights, tuple(weights.get_output_partial_shape(0)))

    source = split.input_value(0).get_node()
    summands = [source]
    if source.get_type_name() == "Add":
        summands = [source.input_value(0).get_node(), source.input_value(1).get_node()]
    axis = split.input_value(1).get_node()
    divides_channels = axis.get_type_name() == "Constant" and int(axis.get_data()) == 1
    return divides_channels and all(is_convolution(node) for node in summands)


def _is_divisible(node: Any, shape: tuple[Any, ...]) -> bool:  # noqa: ANN401
    """Return whether a node is a constant or dequantizes one, so that its output channels can be divided.

    Args:
        node: the weights, or what they are computed from.
        shape: the shape of the weights, output channels first.
    """
    kind, sources = node.get_type_name(), [value.get_node() for value in node.input_values()]
    if kind == "Constant":
        own = tuple(node.get_output_shape(0))
        return node.get_data().size == 1 or (len(own) in (1, len(shape)) and own[0] == shape[0])
    if kind == "Reshape":  # of a scale or a zero point for each channel
        return sources[1].get_type_name() == "Constant" and _is_divisible(sources[0], shape)
    return kind in ("Convert", "Subtract", "Multiply") and all(
        _is_divisible(source, shape) for source in sources
    )


def _part(node: Any, number: int, count: int, parts: dict[tuple[str, int, int], Any]) -> Any:  # noqa: ANN401
    """Return the node that computes one part of the channels of weights, a convolution or a sum of two.

    Args:
        node: the constant, an operator that dequantizes it, the convolution or the sum.
        number: the number of the part, from 0.
        count: the number of parts.
        parts: the parts that exist already, by the name of what they are a part of, their number and count.
    """
    key = (node.get_name(), number, count)
    if key not in parts:

        def part_of(value: Any) -> Any:  # noqa: ANN401
            return _part(value.get_node(), number, count, parts)

        parts[key] = _new_part(node, number, count, part_of)
    return parts[key]


def _new_part(node: Any, number: int, count: int, part_of: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    """Return a new node for `_part`; `part_of` returns the part of one of the node's inputs."""
    from openvino import opset13

    kind, values = node.get_type_name(), node.input_values()
    if kind == "Constant":
        array = node.get_data()
        if array.size == 1:  # a scale or a zero point of all channels
            return node
        size = len(array) // count
        return opset13.constant(np.ascontiguousarray(array[number * size : (number + 1) * size]))
    if kind == "Convert":
        return opset13.convert(part_of(values[0]), node.get_output_element_type(0).to_string())
    if kind == "Reshape":
        shape = [-1, *values[1].get_node().get_data()[1:]]
        return opset13.reshape(part_of(values[0]), shape, special_zero=False)
    if kind == "Convolution":
        attributes = node.get_attributes()
        names = ("strides", "pads_begin", "pads_end", "dilations")
        return opset13.convolution(values[0], part_of(values[1]), *(attributes[name] for name in names))
    operator = {"Add": opset13.add, "Subtract": opset13.subtract, "Multiply": opset13.multiply}[kind]
    return operator(*(part_of(value) for value in values))
