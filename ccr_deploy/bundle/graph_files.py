"""Adding an ONNX graph to a bundle."""

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
    """Writes a graph under a name that says what it is."""
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
