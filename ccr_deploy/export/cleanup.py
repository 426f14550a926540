"""From what torch's exporter gives to what goes into a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter

from ccr_deploy.export.naming import NameByModulePass

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def clean_up(model: ir.Model, *, share_repeated_work: bool) -> None:
    """Folds constants, fuses batch norms, shares equal weights, names everything, strips its origin.

    With `share_repeated_work` equal computations become one; the plain schedule keeps them, since it
    is there to show what naive unrolling costs.
    """
    passes: Sequence[ir.passes.PassBase] = (
        common.InlinePass(),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(size_limit=2**62),
        *((common.CommonSubexpressionEliminationPass(),) if share_repeated_work else ()),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.OutputFixPass(),
        NameByModulePass(),
        StripOriginPass(),
    )
    optimizer.fold_constants(model)
    rewriter.rewrite(model)
    optimizer.fold_constants(model)
    for graph_pass in passes:
        graph_pass(model)
