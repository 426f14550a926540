"""Write a mean over rows and columns as an average pooling."""

from __future__ import annotations

import onnx_ir as ir


class AveragePoolPass(ir.passes.InPlacePass):
    """Replaces a ReduceMean over all rows and columns, whose sizes are known, by an AveragePool.

    PyTorch's exporter writes ``AdaptiveAvgPool2d(1)`` as a ReduceMean. TensorRT has kernels for pooling in
    the layout of its convolutions, but transposes the input of a ReduceMean if the batch is larger than 1.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace in place; the values that the results are read from do not change."""
        modified = False
        for node in list(model.graph):
            sizes = _pooled_sizes(node)
            if sizes is None:
                continue
            (mean,) = node.outputs
            pool = ir.node(
                "AveragePool",
                [node.inputs[0]],
                {"kernel_shape": sizes},
                name=node.name,
                metadata_props=node.metadata_props,
            )
            pool.outputs[0].shape, pool.outputs[0].type = mean.shape, mean.type
            model.graph.insert_before(node, pool)
            pool.outputs[0].name = mean.name
            ir.convenience.replace_all_uses_with(mean, pool.outputs[0], replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            modified = True
        return ir.passes.PassResult(model, modified)


def _pooled_sizes(node: ir.Node) -> list[int] | None:
    """Return rows and columns of the images that a node averages; None if it does anything else."""
    if node.op_type != "ReduceMean" or node.attributes.get_int("keepdims", 1) != 1:
        return None
    image, axes = node.inputs[:2]
    if image is None or image.shape is None or axes is None or axes.const_value is None:
        return None
    averaged = sorted(axis % len(image.shape) for axis in axes.const_value.numpy().tolist())
    sizes = [size for size in image.shape[2:] if isinstance(size, int)]
    return sizes if len(image.shape) == 4 and averaged == [2, 3] and len(sizes) == 2 else None
