"""Write ONNX graphs into a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir

from ccr_deploy.bundle.manifest import GraphRecord
from ccr_deploy.graphs.canonical_hash import canonical_graph_hash
from ccr_deploy.graphs.convolutions import convolutions, quantized_convolutions

if TYPE_CHECKING:
    from ccr_deploy.bundle.writer import BundleWriter
    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import Schedule, Stage


def add_graph(
    writer: BundleWriter, model: onnx_ir.Model, stage: Stage, precision: Precision, schedule: Schedule | None
) -> GraphRecord:
    """Write a graph into a bundle's folder, under the name ``stage.precision.schedule.<hash>.onnx``.

    Args:
        writer: the bundle's writer.
        model: the graph.
        stage: the stage that it computes.
        precision: the precision that it computes in.
        schedule: its unroll schedule; None if it is not an encoder.

    Returns:
        The graph's record for the manifest.
    """
    stem = ".".join(filter(None, (stage, precision, schedule)))
    return GraphRecord(
        stage=stage,
        precision=precision,
        schedule=schedule,
        graph_hash=canonical_graph_hash(model),
        convolutions=len(convolutions(model)),
        quantized_convolutions=len(quantized_convolutions(model)),
        file=writer.add(stem, ".onnx", lambda path: onnx_ir.save(model, path)),
    )
