"""Activations of a graph by their logical names, graphs with additional outputs, and sub-graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

DEQUANTIZED = " after Q/DQ"
"""Follows the name of a tensor that has passed a pair of QuantizeLinear and DequantizeLinear."""


@dataclass(frozen=True)
class Activation:
    """A tensor of a graph that depends on the graph's inputs.

    `name` is its logical name, the same in all precisions; for the output of a Q/DQ pair it is that of the
    pair's input and `DEQUANTIZED`. `tensor` is its name in the graph, `operator` its node's operator, and
    `inputs` are the logical names that its node reads.
    """

    name: str
    tensor: str
    operator: str
    inputs: tuple[str, ...]


def activations(model: ir.Model) -> dict[str, Activation]:
    """Return the floating-point activations by logical name, in the order in which they are computed.

    Tensors that are computed from weights alone, such as the Q/DQ pairs of weights, are omitted, and those
    behind the sign of an encoder, which are bits.
    """
    names: dict[ir.Value | None, str] = {value: str(value.name) for value in model.graph.inputs}
    found: dict[str, Activation] = {}
    for node in model.graph:
        inputs = [names[value] for value in node.inputs if value in names]
        if not inputs or node.op_type == "GreaterOrEqual":
            continue
        for output in node.outputs:
            names[output] = _logical_name(node, output, inputs[0])
            if node.op_type != "QuantizeLinear":
                activation = Activation(names[output], str(output.name), node.op_type, tuple(inputs))
                found.setdefault(activation.name, activation)
    return found


def with_outputs(model: ir.Model, tensors: Iterable[str]) -> ir.Model:
    """Return a copy of a graph with additional outputs: the tensors of these names."""
    result = ir.from_proto(ir.to_proto(model))
    taken = {value.name for value in result.graph.outputs}
    values = ir.convenience.create_value_mapping(result.graph)
    result.graph.outputs.extend(values[name] for name in dict.fromkeys(tensors) if name not in taken)
    return result


def subgraph(
    model: ir.Model, inputs: Sequence[str], outputs: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> ir.Model:
    """Return the part of a graph between some tensors as a graph of its own.

    Args:
        model: the graph.
        inputs: names of the tensors that become its inputs.
        outputs: names of the tensors that become its outputs.
        shapes: shape of each input, for those whose shape the graph does not state. It replaces all if the
            inputs have different first dimensions, which then are not all the batch.
    """
    copy = ir.from_proto(ir.to_proto(model))
    result = ir.Model(ir.convenience.extract(copy.graph, inputs, outputs), ir_version=copy.ir_version)
    result.graph.opset_imports.update(copy.opset_imports)
    is_static = len({shape[:1] for shape in shapes.values()}) > 1
    for value in result.graph.inputs:
        if value.shape is None or is_static:
            value.shape = ir.Shape(shapes[str(value.name)])
    common.RemoveUnusedNodesPass()(result)
    return result


def cut(found: Mapping[str, Activation], name: str, depth: int, cuttable: Collection[str]) -> tuple[str, ...]:
    """Return the names of the tensors that separate an activation from what is computed further before it.

    Args:
        found: the activations of a graph.
        name: the activation, by its logical name.
        depth: number of nodes between it and the tensors; more where a tensor is not cuttable.
        cuttable: the activations that may become inputs of a sub-graph.

    Returns:
        Names of activations and of inputs of the graph, in the order in which the sub-graph reads them.
    """
    inside: dict[str, None] = {}
    frontier = [name]
    for _ in range(depth):
        following: list[str] = []
        while frontier:
            current = frontier.pop()
            if current in inside or current not in found:
                continue
            inside[current] = None
            for read in found[current].inputs:
                (following if read in cuttable else frontier).append(read)
        frontier = following
    reads = (read for current in inside for read in found[current].inputs)
    return tuple(dict.fromkeys(read for read in reads if read not in inside))


def _logical_name(node: ir.Node, output: ir.Value, first_input: str) -> str:
    if node.op_type == "QuantizeLinear":
        return first_input
    if node.op_type == "DequantizeLinear":
        return first_input + DEQUANTIZED
    return str(output.name)
