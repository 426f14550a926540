"""Passes over ONNX graphs that several stages use before a graph is written."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ccr_deploy.graphs.weights import per_channel

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


class StoreInt8WeightsPass(ir.passes.InPlacePass):
    """Replaces quantized weights by their integers: a DequantizeLinear reads an INT8 initializer.

    The integers are those of QuantizeLinear, computed in FP32: ``saturate(round(weight / scale))``, rounded
    half to even (ONNX, QuantizeLinear-19). So every backend executes the same integers, whatever its own
    QuantizeLinear does with FP16 weights.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove every QuantizeLinear of an initializer."""
        quantizers = [
            node
            for node in model.graph
            if node.op_type == "QuantizeLinear"
            and node.inputs[0] is not None
            and node.inputs[0].is_initializer()
        ]
        for node in quantizers:
            stored = _integers(node)
            model.graph.register_initializer(stored)
            ir.convenience.replace_all_uses_with(node.outputs[0], stored)
            model.graph.remove(node, safe=True)
        common.RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=bool(quantizers))


def _integers(quantizer: ir.Node) -> ir.Value:
    """Return the output of a symmetric QuantizeLinear of a weight as an initializer."""
    weight, scale, zero_point = quantizer.inputs
    assert weight is not None
    assert scale is not None
    assert zero_point is not None
    assert weight.const_value is not None
    assert scale.const_value is not None
    assert zero_point.const_value is not None
    assert not zero_point.const_value.numpy().any(), f"{quantizer.name}: its zero point is not 0"
    values = weight.const_value.numpy().astype(np.float32)
    steps = per_channel(scale.const_value.numpy().astype(np.float32), quantizer, values.ndim)
    limits = np.iinfo(np.int8)
    integers = np.clip(np.rint(values / steps), limits.min, limits.max).astype(np.int8)
    tensor = ir.tensor(integers, name=f"{weight.name}_quantized")
    return ir.Value(
        name=tensor.name, shape=weight.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
    )


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
