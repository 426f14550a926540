"""Metadata of engine and payload files, and the commands that reproduce an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.backends.base import BuiltFrom
from ccr_deploy.backends.registry import backend_class
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.codec.payload import read_payload
from ccr_deploy.engines.sidecar import check_hash, read_sidecar, sidecar_path
from ccr_deploy.errors import EngineError, PayloadError, WrongUsageError
from ccr_deploy.workflow.sources import is_payload, read_payload_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.codec.payload import PayloadHeader
    from ccr_deploy.engines.sidecar import Sidecar


def inspect_file(path: Path) -> Sidecar | PayloadHeader:
    """Return the sidecar of an engine, after checking the engine against it, or the header of a payload.

    Raises:
        WrongUsageError: if the file cannot be read.
        EngineError: if the engine is damaged or has no sidecar.
        PayloadError: if the payload is damaged.
    """
    if path.is_dir():
        raise WrongUsageError(f"{path}: is a folder: give an engine or payload file")
    if is_payload(path):
        try:
            return read_payload(read_payload_bytes(path))[0]
        except PayloadError as error:
            raise PayloadError(f"{path}: {error}") from error
    if not sidecar_path(path).exists():
        raise EngineError(
            f"{path}: neither a payload nor an engine with a sidecar {sidecar_path(path).name}: "
            "give an engine in the engine store, or a payload"
        )
    sidecar = read_sidecar(path)
    check_hash(path, sidecar, sha256_of(path))
    return sidecar


def reproduce(sidecar: Sidecar, engine: Path, bundle: Bundle) -> list[str]:
    """Return commands of the backend's own tools that build and run an engine from the bundle's graph.

    Args:
        sidecar: sidecar of the engine.
        engine: path of the engine.
        bundle: bundle that the engine was built from.

    Raises:
        WrongUsageError: if the backend has no such tools, or the bundle does not have the engine's graph.
    """

    def graph() -> Path:
        graphs = {graph.file.name: graph.file for graph in bundle.manifest.graphs}
        name = sidecar.origin.graph_file or ""
        if name not in graphs:
            raise WrongUsageError(
                f"{bundle.path}: has no graph {name}, which {engine} was built from: "
                "give the engine's bundle with --bundle"
            )
        return bundle.file(graphs[name])

    resolved = sidecar.origin.resolved_target
    built = BuiltFrom(
        options=resolved.options,
        precision=sidecar.key.precision,
        batch=resolved.batch,
        library_version=sidecar.build.library_version,
        graph=graph,
        input_shapes=bundle.manifest.input_shapes(sidecar.key.stage),
    )
    return backend_class(resolved.backend).reproduction(engine, built)
