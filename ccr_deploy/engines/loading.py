"""An engine from its folder into memory, after its sidecar was checked."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ccr_deploy.engines.sidecar import check_fields, check_hash, read_sidecar

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.base import Backend
    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.core.precisions import EnginePrecision


def load_engine(backend: Backend, engine: Path, precision: EnginePrecision) -> Runner:
    """Load an engine that fits the backend and this machine; of a library that takes bytes, no others.

    Args:
        backend: the backend, with the options that the engine was built with.
        engine: the engine's file, beside which its sidecar stands.
        precision: what it was built for.

    Raises:
        EngineError: sidecar or engine is missing, changed or another's, they were built for another version
            or device, or the library refuses the engine.
    """
    from ccr_deploy.backends.base import EngineFile  # which whoever made the backend has imported

    sidecar = read_sidecar(engine)
    here = {
        "backend": backend.name,
        "backend_version": backend.bound_version,
        "device": backend.device,
        "precision": precision,
    }
    check_fields(engine, sidecar, here)

    def checked_bytes(path: Path) -> bytes:
        content = path.read_bytes()
        check_hash(path, sidecar, hashlib.sha256(content).hexdigest())
        return content

    return backend.load(EngineFile(engine, precision, sidecar.build.library_version, checked_bytes))
