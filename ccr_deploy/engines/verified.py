"""The check that an engine's sidecar has the record of a verification.

`ccr-deploy verify` writes the record; with ``--require-verified``, commands and the runtime refuse engines
without one. It states the SHA-256 of the engine's bytes that were verified, so that no other bytes are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import Engine, EngineStore


def check_verified(engine: Engine, bundle: Bundle, target: str, store: EngineStore) -> None:
    """Raise an error unless exactly this engine passed a verification for this bundle.

    Args:
        engine: the engine, whose bytes were compared with its sidecar.
        bundle: the bundle that the engine is used with.
        target: the name of the target, for the message.
        store: the engine store, for the message.

    Raises:
        EngineError: if the engine was not verified, failed, or was verified as other bytes or for another
            model; the message has the command that verifies it.
    """
    if problem := _problem(engine, bundle):
        raise EngineError(f"{engine.path}: {problem}: {_remedy(engine, bundle, target, store)}")


def _problem(engine: Engine, bundle: Bundle) -> str | None:
    found = engine.sidecar.verification
    if found is None:
        return "was not verified"
    if not found.passed:
        return f"failed its verification at {found.verified_at}"
    expected = {
        "engine_sha256": engine.sidecar.engine_sha256,
        "contract_id": bundle.manifest.contract_id,
        "weights_sha256": bundle.manifest.weights.sha256,
    }
    for field, value in expected.items():
        if getattr(found, field) != value:
            return f"was verified with {field} {getattr(found, field)[:12]}…, expected {value[:12]}…"
    return None


def _remedy(engine: Engine, bundle: Bundle, target: str, store: EngineStore) -> str:
    key = engine.sidecar.key
    last_built = store.chosen(bundle, target).get(key.stage)
    # Not of the engines last built, which `verify` takes: an option would name both stages' precision.
    option = "" if last_built and last_built.precision == key.precision else f" --{key.precision}"
    return (
        f"run ccr-deploy verify {bundle.path} --target {target} --engines {store.path}{option}, "
        "on a device with --golden FILE"
    )
