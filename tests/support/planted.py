"""Plant a fault in a graph of a copied bundle whose files and hashes agree."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.bundle.writer import writing_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx_ir as ir

    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import Stage


def plant(
    bundle: Bundle, folder: Path, stage: Stage, precision: Precision, change: Callable[[ir.Model], None]
) -> Bundle:
    """Copy a bundle to `folder`, and change its graphs of one stage and precision in all schedules."""
    import onnx_ir as ir

    from ccr_deploy.graphs.canonical_hash import canonical_graph_hash

    shutil.copytree(bundle.path, folder)
    graphs = []
    with writing_bundle(folder) as writer:
        for graph in bundle.manifest.graphs:
            if (graph.stage, graph.precision) == (stage, precision):
                model = ir.from_proto(ir.to_proto(ir.load(bundle.file(graph.file))))
                change(model)
                stem = ".".join(filter(None, (stage, precision, graph.schedule)))

                def write(path: Path, model: ir.Model = model) -> None:
                    ir.save(model, path)

                file = writer.add(stem, ".onnx", write)
                graph = replace(graph, file=file, graph_hash=canonical_graph_hash(model))  # noqa: PLW2901
            graphs.append(graph)
        writer.commit(replace(bundle.manifest, graphs=tuple(graphs)))
    return Bundle.open(folder)
