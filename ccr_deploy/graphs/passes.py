"""Passes over ONNX graphs that several stages use before a graph is written."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

PRODUCER = "ccr-deploy"


class StripOriginPass(ir.passes.InPlacePass):
    """Removes metadata and doc strings: stack traces, paths, versions and the origins of inner shapes.

    torch's exporter embeds absolute paths, so that the same weights exported in two folders would give two
    different files. Operators, attributes, shapes and weights do not change.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Clear metadata and doc strings of the model, its graph, nodes and values."""
        model.producer_name, model.producer_version, model.domain = PRODUCER, None, None
        common.ClearMetadataAndDocStringPass()(model)
        for node in model.graph:
            for value in node.outputs:
                value.metadata_props.clear()
        return ir.passes.PassResult(model, modified=True)


def drop_unknown_sizes(model: ir.Model) -> None:
    """Remove the shapes of inner tensors that have symbolic sizes other than the batch.

    Shape inference invents names for unknown sizes, and may give two different sizes the same name. ONNX
    Runtime then considers the tensors equally large and reuses the buffer of one for the other.
    """
    inputs_and_outputs = (*model.graph.inputs, *model.graph.outputs)
    batches = {
        str(size) for value in inputs_and_outputs for size in value.shape or () if not isinstance(size, int)
    }
    for node in model.graph:
        for value in node.outputs:
            symbols = {str(size) for size in value.shape or () if not isinstance(size, int)}
            if symbols - batches:
                value.shape = None


def share_weights(model: ir.Model) -> None:
    """Merge initializers of equal content: unrolled iterations have the same weights.

    Without it, a 15 MB encoder at T=8 would take 113 MB after quantization. Constants are lifted to
    initializers first, since only those are compared.
    """
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass(size_limit=2**62)(model)  # the default limit skips all but small ones
    common.RemoveUnusedNodesPass()(model)


class QuantizeInFp32Pass(ir.passes.InPlacePass):
    """Makes every QuantizeLinear of FP16 values read FP32 values; scales do not change.

    For ONNX Runtime before 1.30 on a CPU, which truncates FP16 values when it quantizes them, instead of
    rounding. DequantizeLinear stays in FP16.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Insert a Cast to FP32 before the input and the scale of each QuantizeLinear."""
        modified = False
        for node in list(model.graph):  # a copy, since nodes are inserted
            if node.op_type != "QuantizeLinear":
                continue
            for index, value in enumerate(node.inputs[:2]):
                if value is not None and value.dtype == ir.DataType.FLOAT16:
                    cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
                    cast.outputs[0].dtype = ir.DataType.FLOAT
                    cast.outputs[0].name = f"{node.name}/input{index}_in_fp32"
                    model.graph.insert_before(node, cast)
                    node.replace_input_with(index, cast.outputs[0])
                    modified = True
        return ir.passes.PassResult(model, modified=modified)
