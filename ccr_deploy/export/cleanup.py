"""From what torch's exporter gives to what goes into a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common
from onnxscript import optimizer, rewriter

from ccr_deploy.export.naming import NameByModulePass
from ccr_deploy.graphs.passes import StripOriginPass, share_weights

if TYPE_CHECKING:
    import onnx_ir as ir


def clean_up(model: ir.Model, *, share_repeated_work: bool) -> None:
    """Folds constants, fuses batch norms, shares equal weights, names everything, strips its origin.

    With `share_repeated_work` equal computations become one; the plain schedule keeps them, since it
    is there to show what naive unrolling costs.
    """
    optimizer.fold_constants(model)
    rewriter.rewrite(model)
    optimizer.fold_constants(model)
    common.InlinePass()(model)
    common.RemoveUnusedNodesPass()(model)
    share_weights(model)
    if share_repeated_work:
        common.CommonSubexpressionEliminationPass()(model)
    passes = (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.OutputFixPass(),
        NameByModulePass(),
        StripOriginPass(),
    )
    for graph_pass in passes:
        graph_pass(model)
