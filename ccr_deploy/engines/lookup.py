"""Compute the key of a stage's engine, and find the engine in the store; for commands and the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.engines.sidecar import EngineKey
from ccr_deploy.engines.verified import check_verified
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from ccr_deploy.backends.base import Backend
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import Engine, EngineStore
    from ccr_deploy.targets.resolved import ResolvedTarget


def engine_key(bundle: Bundle, stage: Stage, resolved: ResolvedTarget, backend: Backend) -> EngineKey:
    """Return the key of a stage's engine for this machine.

    Args:
        bundle: the bundle.
        stage: the stage.
        resolved: the target, resolved for the stage.
        backend: the target's backend.

    Raises:
        WrongUsageError: if the bundle does not have the graph.
        EngineError: if the engine is bound to a GPU and there is none.
        MissingExtraError: if the engine is bound to a GPU and cuda-python is not installed.
    """
    if backend.is_reference:  # it has no graph, but is identified by weights and configuration
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


def find_engine(
    store: EngineStore,
    bundle: Bundle,
    target: str,
    key: EngineKey,
    suffix: str,
    *,
    require_verified: bool = False,
) -> Engine:
    """Find the engine of a key, and compare it with its sidecar.

    Args:
        store: the engine store.
        bundle: the bundle that the engine is used with.
        target: the name of the target, for the message.
        key: the key of the engine.
        suffix: the suffix of the backend's engine files.
        require_verified: whether to refuse an engine that has not passed `ccr-deploy verify`.

    Raises:
        WrongUsageError: if it has not been built; the message has the command that builds it.
        EngineError: if the stored engine is damaged, or not verified although this is required.
    """
    if engine := store.find(key, suffix):
        if require_verified:
            check_verified(engine, bundle, target, store)
        return engine
    raise not_built(store, bundle, target, key.stage, key)


def not_built(
    store: EngineStore, bundle: Bundle, target: str, stage: Stage, key: EngineKey | None = None
) -> WrongUsageError:
    """Return the error for an engine that has not been built, with the command that builds it.

    Args:
        store: the engine store.
        bundle: the bundle.
        target: the name of the target.
        stage: the stage.
        key: the key of the engine; None if nothing was ever built for this bundle and target.
    """
    engine, difference, option = f"{stage} engine", "", ""
    if key:
        engine, difference = f"{key.precision} {engine}", _difference(store, key)
        option = "" if key.precision == "fp32" else f" --{key.precision}"
    return WrongUsageError(
        f"{store.path}: no {engine} of {bundle.path} for the target {target}{difference}: run "
        f"ccr-deploy build-engine {bundle.path} --target {target}{option}"
    )


def _difference(store: EngineStore, key: EngineKey) -> str:
    """Describe how the most similar engine in the store differs; empty if there is none."""
    similar = store.similar(key)
    if similar is None:
        return ""
    # Names the first difference that explains the missing engine: a new library or another machine.
    for field in ("backend_version", "device", "weight_bits"):
        found, wanted = getattr(similar.key, field), getattr(key, field)
        if found != wanted:
            return f" (found one with {field} {found}, expected {wanted})"
    return f" (found one with other settings, built for the target {similar.origin.target})"
