"""Runners for the ONNX graphs of a bundle on this machine's CPU, without optimizations."""

from __future__ import annotations

import tempfile
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeBackend
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.processor import processor_device
from ccr_deploy.errors import MissingExtraError
from ccr_deploy.graphs.canonical_hash import check_graph_hash
from ccr_deploy.verification.answer_cache import CachedRunner

if TYPE_CHECKING:
    import onnx_ir as ir

    from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeRunner
    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.verification.answer_cache import AnswerCache


def load_model(bundle: Bundle, graph: GraphRecord) -> ir.Model:
    """Load a graph after checking its file.

    Raises:
        BundleError: if the file is damaged, or its canonical hash differs from the manifest's.
        MissingExtraError: if onnx-ir is not installed.
    """
    try:
        import onnx_ir
    except ImportError:
        raise MissingExtraError("onnx-ir", "export", "reading a graph") from None
    path = bundle.file(graph.file)
    check_graph_hash(path, graph.graph_hash)
    return onnx_ir.load(path)


def graph_runner(
    bundle: Bundle, graph: GraphRecord, precision: EnginePrecision | None = None
) -> OnnxRuntimeRunner:
    """Return a runner that executes a graph node by node in ONNX Runtime.

    ONNX Runtime computes FP16 in FP32 on a CPU. So a graph with FP16 parts is emulated by an FP32 graph
    that rounds to FP16 after every such node.

    Args:
        bundle: bundle of the graph.
        graph: the graph.
        precision: precision of the engine to emulate; None for the graph's own.

    Raises:
        BundleError: if the graph's file is damaged.
        EngineError: if ONNX Runtime cannot load the graph.
        MissingExtraError: if a package is not installed.
    """
    precision = precision or graph.precision
    if PRECISIONS[precision].rounding is None:
        return OnnxRuntimeBackend().load_graph(bundle.file(graph.file))
    from ccr_deploy.quantization.emulation import emulate

    return model_runner(emulate(load_model(bundle, graph), precision))


def graphs_computed_by() -> tuple[str, ...]:
    """Return what the outputs of graphs depend on besides the graphs: library, its version, and processor.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed.
    """
    backend = OnnxRuntimeBackend()
    return backend.name, backend.version, processor_device()


def _onnx_ir_version() -> str:
    try:
        return version("onnx-ir")
    except PackageNotFoundError:
        raise MissingExtraError("onnx-ir", "export", "emulating a graph") from None


def cached_graph_runner(
    cache: AnswerCache, bundle: Bundle, graph: GraphRecord, precision: EnginePrecision | None = None
) -> CachedRunner:
    """Return a runner that executes a graph only for batches whose outputs are not in the cache.

    The graph is loaded for the first such batch: this raises the errors of `graph_runner`.

    Args:
        cache: the cache.
        bundle: bundle of the graph.
        graph: the graph.
        precision: precision of the engine to emulate; None for the graph's own.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed, or onnx-ir for a graph that is emulated.
    """
    precision = precision or graph.precision
    made_by = [*graphs_computed_by(), graph.graph_hash, graph.file.sha256, precision]
    if PRECISIONS[precision].rounding is not None:
        made_by.append(_onnx_ir_version())  # it makes the graph that emulates this one
    return CachedRunner(cache, made_by, partial(graph_runner, bundle, graph, precision))


def model_runner(model: ir.Model) -> OnnxRuntimeRunner:
    """Return a runner that executes a graph in memory node by node in ONNX Runtime.

    Raises:
        EngineError: if ONNX Runtime cannot load the graph.
    """
    import onnx_ir

    with tempfile.TemporaryDirectory(prefix="ccr-deploy-") as folder:
        path = Path(folder) / "graph.onnx"
        onnx_ir.save(model, path)
        return OnnxRuntimeBackend().load_graph(path)
