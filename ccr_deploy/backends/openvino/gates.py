"""One convolution for each gate of a ConvLSTM cell, before OpenVINO compiles an FP32 graph.

A graph computes the four gates of a cell by one convolution and splits its output, which is best on a GPU. On
a CPU, OpenVINO copies the parts of a split, and cannot fuse what follows it into the convolution. With a
convolution for each gate it fuses the sum of the input and hidden convolutions and the Sigmoid or Tanh, and
the forget gate of the first iteration, which nothing reads, is not computed. `benchmarks.where_time_goes`
measures what this saves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


def separate_gates(model: Any) -> None:  # noqa: ANN401 -- the library has no types
    """Replace the convolutions whose output is split by one for each part, in an OpenVINO model in place.

    A split is replaced if its input is a convolution, or a sum of two, of weights that are constants.
    """
    parts: dict[tuple[str, int], Any] = {}
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
        is_constant = node.input_value(1).get_node().get_type_name() == "Constant"
        return node.get_type_name() == "Convolution" and is_constant

    source = split.input_value(0).get_node()
    summands = [source]
    if source.get_type_name() == "Add":
        summands = [source.input_value(0).get_node(), source.input_value(1).get_node()]
    axis = split.input_value(1).get_node()
    divides_channels = axis.get_type_name() == "Constant" and int(axis.get_data()) == 1
    return divides_channels and all(is_convolution(node) for node in summands)


def _part(node: Any, number: int, count: int, parts: dict[tuple[str, int], Any]) -> Any:  # noqa: ANN401
    """Return the node that computes one part of the channels of a convolution, or of a sum of two.

    Args:
        node: the convolution or the sum.
        number: the number of the part, from 0.
        count: the number of parts.
        parts: the parts that exist already, by the name of what they are a part of and their number.
    """
    from openvino import opset13

    def once(name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401
        if (name, number) not in parts:
            parts[name, number] = make()
        return parts[name, number]

    def convolution() -> Any:  # noqa: ANN401
        constant, attributes = node.input_value(1).get_node(), node.get_attributes()
        weights = once(constant.get_friendly_name(), lambda: opset13.constant(rows(constant.get_data())))
        names = ("strides", "pads_begin", "pads_end", "dilations")
        return opset13.convolution(node.input_value(0), weights, *(attributes[name] for name in names))

    def rows(weights: Any) -> Any:  # noqa: ANN401
        size = len(weights) // count
        return np.ascontiguousarray(weights[number * size : (number + 1) * size])

    if node.get_type_name() == "Convolution":
        return once(node.get_friendly_name(), convolution)
    summands = [_part(node.input_value(index).get_node(), number, count, parts) for index in (0, 1)]
    return opset13.add(*summands)
