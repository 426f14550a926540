"""A bundle's graphs as calibration sees them: FP32 ones with FP16 siblings, one of each stage to judge by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.bundle.manifest import MANIFEST
from ccr_deploy.core.stages import CHAIN_STAGES, DEFAULT_SCHEDULE
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.quantization.quantizers import layers
from ccr_deploy.workflow.graphs import load_model

if TYPE_CHECKING:
    from collections.abc import Collection

    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import ChainStage


class CalibratedGraphs:
    """A bundle's FP32 graphs with their FP16 siblings."""

    def __init__(self, bundle: Bundle) -> None:
        """Takes the graphs of a bundle as it is now.

        Raises:
            WrongUsageError: it has no FP16 graphs.
        """
        self.bundle = bundle
        self.manifest_file = (bundle.path / MANIFEST).read_bytes()
        self.fp32 = [
            graph
            for graph in bundle.manifest.graphs
            if graph.precision == "fp32" and graph.stage != "baseline"
        ]
        if not bundle.has_precision("fp16"):
            raise WrongUsageError(
                f"{bundle.path}: no FP16 graphs in it, which quantized graphs are made with: "
                "export it again without --no-fp16"
            )

    def sibling(self, fp32: GraphRecord, precision: Precision) -> GraphRecord:
        """The graph of the same stage and schedule in a precision."""
        return self.bundle.graph(fp32.stage, precision, fp32.schedule)

    def collected(self, stage: ChainStage) -> GraphRecord:
        """The FP32 graph that ranges are collected on: the default schedule names every iteration."""
        graphs = [graph for graph in self.fp32 if graph.stage == stage]
        return next((graph for graph in graphs if graph.schedule == DEFAULT_SCHEDULE), graphs[0])

    def by_hash(self, stage: ChainStage, graph_hash: str) -> GraphRecord:
        """The stage's FP32 graph of that hash, else the one that would be collected on."""
        found = (graph for graph in self.fp32 if graph.stage == stage and graph.graph_hash == graph_hash)
        return next(found, self.collected(stage))

    def checked_layers(self, names: Collection[str]) -> tuple[str, ...]:
        """The names, once each, after a check that they are layers.

        Raises:
            WrongUsageError: one is not.
        """
        known = [
            layer
            for stage in CHAIN_STAGES
            for layer in layers(load_model(self.bundle, self.collected(stage)))
        ]
        if unknown := [name for name in names if name not in known]:
            raise WrongUsageError(
                f"there is no layer {unknown[0]!r} to keep in high precision: choose from {', '.join(known)}"
            )
        return tuple(dict.fromkeys(names))
