"""What an engine or a payload is, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.backends.base import BuiltFrom
from ccr_deploy.backends.registry import backend_class
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.codec.payload import read_payload
from ccr_deploy.engines.sidecar import check_hash, read_sidecar
from ccr_deploy.errors import PayloadError, WrongUsageError
from ccr_deploy.workflow.sources import is_payload, read_payload_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.codec.payload import PayloadHeader
    from ccr_deploy.engines.sidecar import Sidecar


def inspect_file(path: Path) -> Sidecar | PayloadHeader:
    """An engine's sidecar, after the engine was checked against it, or a payload's header.

    Raises:
        WrongUsageError: there is no such file.
        EngineError, PayloadError: it is damaged, or neither of the two.
    """
    if is_payload(path):
        try:
            return read_payload(read_payload_bytes(path))[0]
        except PayloadError as error:
            raise PayloadError(f"{path}: {error}") from error
    sidecar = read_sidecar(path)
    check_hash(path, sidecar, sha256_of(path))
    return sidecar


def reproduce(sidecar: Sidecar, engine: Path, bundle: Bundle) -> list[str]:
    """Return the commands that build and run an engine from the bundle's graph, by its library's own tools.

    Args:
        sidecar: the engine's.
        engine: its file.
        bundle: the bundle that it was built from.

    Raises:
        WrongUsageError: the library has no such tools, or the bundle does not have the engine's graph.
    """

    def graph() -> Path:
        graphs = {graph.file.name: graph.file for graph in bundle.manifest.graphs}
        name = sidecar.origin.graph_file or ""
        if name not in graphs:
            raise WrongUsageError(f"{bundle.path}: it has no {name}, which {engine} was built from")
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
