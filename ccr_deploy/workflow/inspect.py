"""What an engine or a payload is, without running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.codec.payload import read_payload
from ccr_deploy.engines.sidecar import check_hash, read_sidecar
from ccr_deploy.errors import PayloadError, WrongUsageError
from ccr_deploy.targets.options import RtxOptions, TensorRtOptions
from ccr_deploy.workflow.sources import is_payload, read_payload_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.codec.payload import PayloadHeader
    from ccr_deploy.engines.sidecar import Sidecar


@dataclass(frozen=True)
class Inspected:
    """One of the two things that can be inspected."""

    engine: Sidecar | None = None
    payload: PayloadHeader | None = None


def inspect_file(path: Path) -> Inspected:
    """An engine's sidecar, after the engine was checked against it, or a payload's header.

    Raises:
        WrongUsageError: there is no such file.
        EngineError, PayloadError: it is damaged, or neither of the two.
    """
    if is_payload(path):
        try:
            return Inspected(payload=read_payload(read_payload_bytes(path))[0])
        except PayloadError as error:
            raise PayloadError(f"{path}: {error}") from error
    sidecar = read_sidecar(path)
    check_hash(path, sidecar, sha256_of(path))
    return Inspected(engine=sidecar)


def reproduce(sidecar: Sidecar, engine: Path, bundle: Bundle) -> list[str]:
    """The commands of trtexec and Polygraphy that build and run an engine from the bundle's graph.

    Raises:
        WrongUsageError: the engine is not TensorRT's, or the bundle does not have its graph.
    """
    from ccr_deploy.backends.tensorrt.reproduce import reproduction

    if not isinstance(sidecar.origin.resolved_target.options, TensorRtOptions | RtxOptions):
        raise WrongUsageError(f"{engine}: built by {sidecar.key.backend}: only TensorRT has such commands")
    graphs = {graph.file.name: graph.file for graph in bundle.manifest.graphs}
    name = sidecar.origin.graph_file or ""
    if name not in graphs:
        raise WrongUsageError(f"{bundle.path}: it has no {name}, which {engine} was built from")
    shapes = bundle.manifest.input_shapes(sidecar.key.stage)
    return reproduction(sidecar, engine, bundle.file(graphs[name]), shapes)
