"""Count the multiply-accumulates of a graph, and the bytes that executing it moves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

from ccr_deploy.graphs.convolutions import is_quantized

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALIASES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "DequantizeLinear"})
"""Operators that move nothing by themselves: views of their input, and scales that a kernel applies."""


@dataclass(frozen=True)
class GraphWork:
    """The work of one run of a graph.

    `int8_multiply_accumulates` are those of all `multiply_accumulates` whose inputs are quantized.
    `least_bytes` are the weights, the inputs and the outputs, each once. `most_bytes` are the tensors that
    each node reads and writes, weights included, as if nothing stayed in a cache and no nodes were fused.
    """

    multiply_accumulates: int
    int8_multiply_accumulates: int
    least_bytes: int
    most_bytes: int

    def __add__(self, other: GraphWork) -> GraphWork:
        """Return the work of both graphs, one after the other."""
        return GraphWork(
            self.multiply_accumulates + other.multiply_accumulates,
            self.int8_multiply_accumulates + other.int8_multiply_accumulates,
            self.least_bytes + other.least_bytes,
            self.most_bytes + other.most_bytes,
        )


def graph_work(model: ir.Model, batch: int, *, float_bytes: int = 4) -> GraphWork:
    """Count the work of one run.

    A convolution computes for each element of its output as many multiply-accumulates as one filter has
    weights, a matrix product as many as its inner dimension. A tensor behind a DequantizeLinear counts with
    the bytes of its integers, since libraries compute with them.

    Args:
        model: a graph of a bundle, whose inputs have a symbolic batch.
        batch: the images of the run.
        float_bytes: the bytes of an FP32 element in the engine; 2 if the engine holds it in BF16.

    Raises:
        ValueError: if the shape of a tensor is not known.
    """
    graph = _with_batch(model, batch).graph
    counter = _Counter(float_bytes)
    weights = {value for value in graph.initializers.values() if value.uses()}
    constants = set(weights)  # and what is computed from weights alone, which libraries compute once
    for node in graph:
        read = [value for value in node.inputs if value is not None]
        if all(value in constants for value in read):
            constants.update(node.outputs)
            counter.alias(node)
        elif node.op_type in _ALIASES:
            counter.alias(node)
        else:
            counter.add(node)
    interface = counter.bytes_of((*weights, *graph.inputs, *graph.outputs))
    return GraphWork(counter.work, counter.int8_work, interface, counter.moved)


class _Counter:
    def __init__(self, float_bytes: int) -> None:
        self.work = self.int8_work = self.moved = 0
        self._float_bytes = float_bytes
        self._aliased: dict[ir.Value, ir.Value] = {}

    def alias(self, node: ir.Node) -> None:
        """Take the outputs of a node as other names of its first input."""
        if node.inputs and node.inputs[0] is not None:
            self._aliased.update(dict.fromkeys(node.outputs, node.inputs[0]))

    def add(self, node: ir.Node) -> None:
        """Add a node that reads its inputs and writes its outputs."""
        work = _multiply_accumulates(node)
        self.work += work
        self.int8_work += work if is_quantized(node) else 0
        self.moved += self.bytes_of((*(value for value in node.inputs if value is not None), *node.outputs))

    def bytes_of(self, values: Iterable[ir.Value]) -> int:
        """Return the bytes of distinct tensors; of an alias, those of the tensor that it is a name of."""
        return sum(self._size(value) for value in {self._source(value): None for value in values})

    def _source(self, value: ir.Value) -> ir.Value:
        while value in self._aliased:
            value = self._aliased[value]
        return value

    def _size(self, value: ir.Value) -> int:
        assert value.dtype is not None
        itemsize = self._float_bytes if value.dtype == ir.DataType.FLOAT else value.dtype.itemsize
        return math.ceil(math.prod(_shape(value)) * itemsize)


def _multiply_accumulates(node: ir.Node) -> int:
    if node.op_type not in {"Conv", "Gemm", "MatMul"}:
        return 0
    data, weight = node.inputs[:2]
    assert data is not None
    assert weight is not None
    outputs = math.prod(_shape(node.outputs[0]))
    if node.op_type == "Conv":
        return outputs * math.prod(_shape(weight)[1:])
    is_transposed = node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1
    return outputs * _shape(data)[0 if is_transposed else -1]


def _shape(value: ir.Value) -> tuple[int, ...]:
    sizes = tuple(value.shape) if value.shape is not None else (None,)
    if not all(isinstance(size, int) for size in sizes):
        raise ValueError(f"tensor {value.name}: its shape is not known: {value.shape}")
    return tuple(int(str(size)) for size in sizes)


def _with_batch(model: ir.Model, batch: int) -> ir.Model:
    """Return a copy of a graph with a fixed batch and the shapes of all tensors."""
    result = ir.from_proto(ir.to_proto(model))
    for value in result.graph.inputs:
        assert value.shape is not None
        value.shape = ir.Shape(size if isinstance(size, int) else batch for size in value.shape)
    for node in result.graph:
        for value in node.outputs:
            value.shape = None
    return common.ShapeInferencePass(data_prop=True)(result).model
