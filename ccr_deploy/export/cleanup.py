"""Clean up the graphs of torch's exporter for a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common
from onnxscript import optimizer, rewriter

from ccr_deploy.export.naming import NameByModulePass
from ccr_deploy.export.pooling import AveragePoolPass
from ccr_deploy.export.split import SplitBatchPass
from ccr_deploy.graphs.passes import StripOriginPass, share_weights

if TYPE_CHECKING:
    import onnx_ir as ir


def clean_up(model: ir.Model, *, share_repeated_work: bool) -> None:
    """Fold constants, fuse batch norms, share equal weights, name all nodes, and strip metadata, in place.

    Args:
        model: the graph.
        share_repeated_work: merge equal computations. The plain schedule keeps them, because it shows the
            cost of naive unrolling.
    """
    optimizer.fold_constants(model)
    rewriter.rewrite(model)  # fuses batch norms into convolutions, which leaves new constants to fold
    optimizer.fold_constants(model)
    common.InlinePass()(model)
    common.RemoveUnusedNodesPass()(model)
    share_weights(model)
    if share_repeated_work:
        common.CommonSubexpressionEliminationPass()(model)
    passes = (
        SplitBatchPass(),  # this pass and the next leave unused constants
        AveragePoolPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.OutputFixPass(),
        NameByModulePass(),
        StripOriginPass(),  # last, because NameByModulePass reads the metadata that it removes
    )
    for graph_pass in passes:
        graph_pass(model)
