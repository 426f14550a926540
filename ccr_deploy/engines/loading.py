"""Load an engine after checking its sidecar."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ccr_deploy.engines.sidecar import check_fields, check_hash, read_sidecar
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.base import Backend
    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.engines.sidecar import Sidecar


def load_engine(
    backend: Backend, engine: Path, precision: EnginePrecision, *, engine_sha256: str | None = None
) -> Runner:
    """Load an engine, if its sidecar matches the backend and this machine.

    For libraries that load engines from bytes, the bytes are also compared with the sidecar's SHA-256.

    Args:
        backend: the backend, with the options that the engine was built with.
        engine: the engine's file; its sidecar is beside it.
        precision: the precision of the engine.
        engine_sha256: the SHA-256 of the engine that was found before, for example a verified one; None to
            load any engine that matches its sidecar.

    Raises:
        EngineError: if the sidecar or the engine is missing or changed, if they belong to another engine,
            version or device, if the engine was replaced since it was found, or if the library rejects it.
    """
    from ccr_deploy.backends.base import EngineFile  # already imported by the module that made the backend

    sidecar = read_sidecar(engine)
    _check_not_replaced(engine, sidecar, engine_sha256)
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

    file = EngineFile(engine, precision, sidecar.build.library_version, checked_bytes)
    with ExitStack() as loaded:
        runner = loaded.enter_context(backend.load(file))
        # Once more for libraries that read the file themselves: a build may have replaced it meanwhile.
        _check_not_replaced(engine, read_sidecar(engine), engine_sha256)
        loaded.pop_all()
    return runner


def _check_not_replaced(engine: Path, sidecar: Sidecar, expected: str | None) -> None:
    """Raise an EngineError if an engine is no longer the one with the expected SHA-256, if there is one."""
    if expected is not None and expected != sidecar.engine_sha256:
        raise EngineError(
            f"{engine}: replaced by another build since it was checked: its SHA-256 is now "
            f"{sidecar.engine_sha256[:12]}…, expected {expected[:12]}…: run the command again"
        )
