"""From what a stage's engine must be to the engine in the store: the same for commands and for products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.engines.sidecar import EngineKey
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from ccr_deploy.backends.base import Backend
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import Engine, EngineStore
    from ccr_deploy.targets.resolved import ResolvedTarget


def engine_key(bundle: Bundle, stage: Stage, resolved: ResolvedTarget, backend: Backend) -> EngineKey:
    """The key of a stage's engine that runs here.

    Raises:
        WrongUsageError: the bundle lacks the graph that it is built from.
        EngineError, MissingExtraError: it is bound to a GPU, and there is none here.
    """
    if backend.is_reference:
        source_hash, graph_sha256 = bundle.manifest.reference_hash(stage), None
    else:
        graph = bundle.graph(stage, resolved.graph_precision, resolved.schedule)
        source_hash, graph_sha256 = graph.graph_hash, graph.file.sha256
    return EngineKey(
        stage=stage,
        precision=resolved.precision,
        schedule=resolved.schedule,
        source_hash=source_hash,
        graph_sha256=graph_sha256,
        backend=backend.name,
        backend_version=backend.bound_version,
        device=backend.device,
        target_digest=resolved.digest,
        weight_bits=backend.int8_weight_bits if resolved.precision == "int8" else None,
        revision=backend.revisions.get(resolved.precision, 1),
    )


def find_engine(store: EngineStore, bundle: Bundle, target: str, key: EngineKey, suffix: str) -> Engine:
    """The engine of a key, checked against its sidecar.

    Raises:
        WrongUsageError: it was not built yet; the message says how.
        EngineError: the stored engine is damaged.
    """
    if engine := store.find(key, suffix):
        return engine
    raise not_built(store, bundle, target, key.stage, key)


def not_built(
    store: EngineStore, bundle: Bundle, target: str, stage: Stage, key: EngineKey | None = None
) -> WrongUsageError:
    """The error that a stage's engine is not there, with the command that builds it.

    Without a `key` nothing of the kind was ever built.
    """
    what, why, option = f"{stage} engine", "", ""
    if key:
        what, why = f"{key.precision} {what}", _difference(store, key)
        option = "" if key.precision == "fp32" else f" --{key.precision}"
    return WrongUsageError(
        f"{store.path}: no {what} of {bundle.path} for the target {target}{why}: run "
        f"ccr-deploy build-engine {bundle.path} --target {target}{option}"
    )


def _difference(store: EngineStore, key: EngineKey) -> str:
    """What the nearest engine in the store was built for instead."""
    similar = store.similar(key)
    if similar is None:
        return ""
    for field in ("backend_version", "device", "weight_bits"):
        found, wanted = getattr(similar.key, field), getattr(key, field)
        if found != wanted:
            return f" (one is there whose {field} is {found}, expected {wanted})"
    return f" (one is there for other settings, of the target {similar.origin.target})"
