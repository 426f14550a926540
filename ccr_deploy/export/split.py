"""Split a batched tensor into the iterations' parts with one Split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence


class SplitBatchPass(ir.passes.InPlacePass):
    """Replaces the nodes of ``unflatten(0, (T, -1)).unbind(0)`` by a Split into T equal parts.

    PyTorch has no operation that splits a dynamic batch into T parts and that its exporter writes as one
    Split: it writes a Reshape, and a Slice and a Squeeze for each part. TensorRT reads the parts of a Split
    in place if the batch is fixed, and copies none of them.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every such Reshape whose parts are all used."""
        modified = False
        for reshape in list(model.graph):
            parts = _parts(reshape)
            if len(parts) < 2:
                continue
            split = ir.node(
                "Split",
                [reshape.inputs[0]],
                {"axis": 0, "num_outputs": len(parts)},
                num_outputs=len(parts),
                name=reshape.name,
                metadata_props=reshape.metadata_props,
            )
            model.graph.insert_before(reshape, split)
            for output, part in zip(split.outputs, parts, strict=True):
                output.shape, output.type = part.shape, part.type
                ir.convenience.replace_all_uses_with(part, output)
            replaced = [reshape, *_readers(reshape.outputs[0]), *(_producer(part) for part in parts)]
            model.graph.remove(replaced, safe=True)
            modified = True
        return ir.passes.PassResult(model, modified)


def _parts(reshape: ir.Node) -> Sequence[ir.Value]:
    """Return the T parts that follow a Reshape to ``[T, batch, …]``; empty for other nodes."""
    if reshape.op_type != "Reshape" or (shape := _constant(reshape.inputs[1])) is None or shape[1:2] != [-1]:
        return ()
    found: dict[int, ir.Value] = {}
    for reader in _readers(reshape.outputs[0]):
        bounds = [_constant(value) for value in reader.inputs[1:4]]
        start = bounds[0][0] if reader.op_type == "Slice" and bounds[0] else 0
        squeezes = _readers(reader.outputs[0])
        if bounds[1:] != [[start + 1], [0]] or [node.op_type for node in squeezes] != ["Squeeze"]:
            return ()
        found[start] = squeezes[0].outputs[0]
    return [found[index] for index in range(shape[0])] if len(found) == shape[0] else ()


def _readers(value: ir.Value) -> list[ir.Node]:
    return [use.node for use in value.uses()]


def _producer(value: ir.Value) -> ir.Node:
    producer = value.producer()
    assert producer is not None
    return producer


def _constant(value: ir.Value | None) -> list[int] | None:
    if value is None or value.const_value is None:
        return None
    return list(value.const_value.numpy().tolist())
