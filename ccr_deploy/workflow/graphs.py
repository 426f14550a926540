"""A bundle's graphs, run on this machine's CPU as they are written, whatever their precision."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeBackend
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.errors import MissingExtraError
from ccr_deploy.graphs.canonical_hash import check_graph_hash

if TYPE_CHECKING:
    import onnx_ir as ir

    from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeRunner
    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle


def load_model(bundle: Bundle, graph: GraphRecord) -> ir.Model:
    """A graph in memory, after its file was checked.

    Raises:
        BundleError: its file is damaged, or another graph than the manifest says.
        MissingExtraError: onnx-ir is not installed.
    """
    try:
        import onnx_ir
    except ImportError:
        raise MissingExtraError("onnx-ir", "export", "reading a graph") from None
    path = bundle.file(graph.file)
    check_graph_hash(path, graph.graph_hash)
    return onnx_ir.load(path)


def graph_runner(bundle: Bundle, graph: GraphRecord) -> OnnxRuntimeRunner:
    """The graph by ONNX Runtime, node by node; one with FP16 parts by an FP32 graph that rounds as FP16 does.

    Raises:
        BundleError, EngineError, MissingExtraError: as their names say.
    """
    if PRECISIONS[graph.precision].rounding is None:
        return OnnxRuntimeBackend().load_graph(bundle.file(graph.file))
    from ccr_deploy.quantization.emulation import emulate

    return model_runner(emulate(load_model(bundle, graph), graph.precision))


def model_runner(model: ir.Model) -> OnnxRuntimeRunner:
    """A graph in memory, by ONNX Runtime, node by node.

    Raises:
        EngineError: ONNX Runtime refuses it.
    """
    import onnx_ir

    with tempfile.TemporaryDirectory(prefix="ccr-deploy-") as folder:
        path = Path(folder) / "graph.onnx"
        onnx_ir.save(model, path)
        return OnnxRuntimeBackend().load_graph(path)
