"""Load an engine after checking its sidecar."""

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
    """Load an engine, if its sidecar matches the backend and this machine.

    For libraries that load engines from bytes, the bytes are also compared with the sidecar's SHA-256.

    Args:
        backend: the backend, with the options that the engine was built with.
        engine: the engine's file; its sidecar is beside it.
        precision: the precision of the engine.

    Raises:
        EngineError: if the sidecar or the engine is missing or changed, if they belong to another engine,
            version or device, or if the library rejects the engine.
    """
    from ccr_deploy.backends.base import EngineFile  # already imported by the module that made the backend

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
