"""A graph's canonical identity: what it computes, and nothing that only says where it was made."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def canonical_graph_hash(model: ir.Model) -> str:
    """The SHA-256 over operators, attributes, shapes and weights, in hexadecimal.

    Names of inputs and outputs count, since they are the graph's border; names of inner tensors and
    nodes, metadata, doc strings and the producer do not. Tensors are numbered in the order of the
    nodes, which an exporter determines. Graphs with sub-graphs are not of this family.

    Raises:
        TypeError: a node has an attribute that is a graph.
    """
    digest = hashlib.sha256()
    numbers: dict[int, int] = {}

    def add(*parts: object) -> None:
        digest.update("\x1f".join(str(part) for part in parts).encode() + b"\x1e")

    def number(value: ir.Value | None) -> int:
        return -1 if value is None else numbers.setdefault(id(value), len(numbers))

    graph = model.graph
    add("opsets", sorted(model.opset_imports.items()))
    for border in graph.inputs:
        add("input", border.name, border.dtype, border.shape, number(border))
    weights = {
        id(value): hashlib.sha256(value.const_value.tobytes()).hexdigest()
        for value in graph.initializers.values()
        if value.const_value is not None
    }
    for node in graph:
        for value in node.inputs:
            if value is not None and id(value) in weights and id(value) not in numbers:
                add("weight", value.dtype, value.shape, weights[id(value)], number(value))
        attributes = [(name, _attribute_text(node.attributes[name])) for name in sorted(node.attributes)]
        add("node", node.domain, node.op_type, attributes)
        add(*(number(value) for value in node.inputs), "->", *(number(value) for value in node.outputs))
    for border in graph.outputs:
        add("output", border.name, border.dtype, border.shape, number(border))
    return digest.hexdigest()


def _attribute_text(attribute: ir.Attr) -> str:
    if attribute.type.name in {"GRAPH", "GRAPHS"}:
        raise TypeError(f"attribute {attribute.name} is a graph")
    if attribute.type.name == "TENSOR":
        tensor = attribute.as_tensor()
        return f"{tensor.dtype}{tensor.shape}{hashlib.sha256(tensor.tobytes()).hexdigest()}"
    return f"{attribute.type.name}:{attribute.value!r}"
