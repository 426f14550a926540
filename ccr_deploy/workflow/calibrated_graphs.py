"""The graphs of a bundle that calibration reads: FP32 graphs with their FP16 counterparts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.bundle.manifest import MANIFEST
from ccr_deploy.core.stages import CHAIN_STAGES, DEFAULT_SCHEDULE
from ccr_deploy.core.suggestions import choose_from
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
    """The FP32 graphs of encoder and classifier in a bundle, with their counterparts in other precisions."""

    def __init__(self, bundle: Bundle) -> None:
        """Collect the graphs, and keep the manifest to detect later changes.

        Raises:
            WrongUsageError: if the bundle has no FP16 graphs.
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
                f"{bundle.path}: has no FP16 graphs, which calibration needs: "
                "export the bundle again without --no-fp16"
            )

    def sibling(self, fp32: GraphRecord, precision: Precision) -> GraphRecord:
        """Return the graph of the same stage and schedule in another precision."""
        return self.bundle.graph(fp32.stage, precision, fp32.schedule)

    def calibration_graph(self, stage: ChainStage) -> GraphRecord:
        """Return the FP32 graph to calibrate on, if possible in the default schedule.

        In the default schedule, each iteration has separate tensors.
        """
        graphs = [graph for graph in self.fp32 if graph.stage == stage]
        return next((graph for graph in graphs if graph.schedule == DEFAULT_SCHEDULE), graphs[0])

    def by_hash(self, stage: ChainStage, graph_hash: str) -> GraphRecord:
        """Return the stage's FP32 graph with a hash; if there is none, `calibration_graph`."""
        found = (graph for graph in self.fp32 if graph.stage == stage and graph.graph_hash == graph_hash)
        return next(found, self.calibration_graph(stage))

    def checked_layers(self, names: Collection[str]) -> tuple[str, ...]:
        """Return the names of layers without duplicates.

        Raises:
            WrongUsageError: if a name is not a layer.
        """
        known = [
            layer
            for stage in CHAIN_STAGES
            for layer in layers(load_model(self.bundle, self.calibration_graph(stage)))
        ]
        if unknown := [name for name in names if name not in known]:
            raise WrongUsageError(
                f"unknown layer {unknown[0]!r} in the layers to keep in high precision: "
                f"{choose_from(unknown[0], known)}"
            )
        return tuple(dict.fromkeys(names))
