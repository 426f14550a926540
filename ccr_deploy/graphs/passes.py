"""Passes that every graph goes through before it is written, whichever stage made it."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

PRODUCER = "ccr-deploy"


class StripOriginPass(ir.passes.InPlacePass):
    """Removes what says where a graph was made: stack traces, paths, versions, inner shapes' origins.

    torch's exporter embeds absolute paths, so that the same weights exported from two folders would
    give two files.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Clears metadata and doc strings of model, graph, nodes and values."""
        model.producer_name, model.producer_version, model.domain = PRODUCER, None, None
        common.ClearMetadataAndDocStringPass()(model)
        for node in model.graph:
            for value in node.outputs:
                value.metadata_props.clear()
        return ir.passes.PassResult(model, modified=True)


def drop_unknown_sizes(model: ir.Model) -> None:
    """Drops inner shapes with symbolic sizes other than the batch.

    Shape inference names sizes that it does not know, and names two of them alike; ONNX Runtime then takes
    one tensor's buffer for the other's.
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
    """Makes initializers of equal content one: the unrolled iterations share every weight."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass(size_limit=2**62)(model)
    common.RemoveUnusedNodesPass()(model)


class QuantizeInFp32Pass(ir.passes.InPlacePass):
    """Makes every QuantizeLinear of FP16 values one of FP32 values: same scales, same integers."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Puts a Cast before the quantizer and its scale; what the integers are read by stays in FP16."""
        modified = False
        for node in list(model.graph):
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
