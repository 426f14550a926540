"""A graph's canonical identity: what it computes, and nothing that only says where it was made."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ccr_deploy.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir


def canonical_graph_hash(model: ir.Model) -> str:
    """The SHA-256 over operators, attributes, shapes and weights, in hexadecimal.

    Names of inputs and outputs count, since they are the graph's interface; names of inner tensors and
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
    for graph_input in graph.inputs:
        add("input", graph_input.name, graph_input.dtype, graph_input.shape, number(graph_input))
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
    for output in graph.outputs:
        add("output", output.name, output.dtype, output.shape, number(output))
    return digest.hexdigest()


def check_graph_hash(file: Path, stated: str) -> None:
    """Raise a BundleError if a graph's canonical hash is not the one that its bundle's manifest states.

    A device without onnx-ir cannot tell; there the file's SHA-256, which engine keys hold too, has to do.
    """
    try:
        import onnx_ir
    except ImportError:
        return
    found = canonical_graph_hash(onnx_ir.load(file))
    if found != stated:
        raise BundleError(
            f"{file}: its canonical hash begins {found[:12]}, the manifest's field graph_hash says "
            f"{stated[:12]}: export the bundle again, or take it from where you trust it"
        )


def _attribute_text(attribute: ir.Attr) -> str:
    if attribute.type.name in {"GRAPH", "GRAPHS"}:
        raise TypeError(f"attribute {attribute.name} is a graph")
    if attribute.type.name == "TENSOR":
        tensor = attribute.as_tensor()
        return f"{tensor.dtype}{tensor.shape}{hashlib.sha256(tensor.tobytes()).hexdigest()}"
    return f"{attribute.type.name}:{attribute.value!r}"
