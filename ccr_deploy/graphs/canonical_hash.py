"""The canonical hash of a graph: it depends on what the graph computes, not on where it was exported."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ccr_deploy.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir


def canonical_graph_hash(model: ir.Model) -> str:
    """Return the SHA-256 of a graph's operators, attributes, shapes and weights, in hexadecimal.

    Names of graph inputs and outputs are included, since they are its interface. Names of other tensors and
    of nodes, metadata, doc strings and the producer are not. Tensors are numbered in the order of the nodes,
    which the exporter determines. Graphs with sub-graphs (If, Loop) are not supported: no model of this
    family has any.

    Raises:
        TypeError: if a node has an attribute that is a graph.
    """
    digest = hashlib.sha256()
    numbers: dict[int, int] = {}

    def add(*parts: object) -> None:
        # ASCII's unit and record separators, so that the boundaries between parts count.
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
        # A weight is added where it is first used, since the order of initializers is arbitrary.
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
    """Raise BundleError if a graph's canonical hash differs from the one in its bundle's manifest.

    On a device without onnx-ir the check is skipped: there, the SHA-256 of the file, which is also part of
    the engine's key, must be enough.
    """
    try:
        import onnx_ir
    except ImportError:
        return
    found = canonical_graph_hash(onnx_ir.load(file))
    if found != stated:
        raise BundleError(
            f"{file}: its canonical hash begins {found[:12]}, the manifest's field graph_hash {stated[:12]}: "
            "export the bundle again, or copy it again from a trusted source"
        )


def _attribute_text(attribute: ir.Attr) -> str:
    if attribute.type.name in {"GRAPH", "GRAPHS"}:
        raise TypeError(f"attribute {attribute.name} is a graph")
    if attribute.type.name == "TENSOR":
        tensor = attribute.as_tensor()
        return f"{tensor.dtype}{tensor.shape}{hashlib.sha256(tensor.tobytes()).hexdigest()}"
    return f"{attribute.type.name}:{attribute.value!r}"
