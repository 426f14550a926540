"""The record of a verification in an engine's sidecar, and the check that such a record exists.

`ccr-deploy verify` writes the record; with ``--require-verified``, commands and the runtime refuse engines
without one. It states the SHA-256 of the engine's bytes that were verified, so that no other bytes are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import Engine

ReferenceKind = Literal["pytorch", "golden"]
"""What engines are verified against: the checkpoint in PyTorch, or its results in a golden file."""


class Verification(Record, frozen=True):
    """The outcome of the last verification of an engine, together with the other engines of its chain.

    `verified_at` is in UTC. `images` describes the images and `images_sha256` is their digest; for a golden
    file it is the file's SHA-256. `changed_gates` are limits that replaced the default ones, each as
    ``name=limit``. `passed` is whether every gate of the chain passed.
    """

    engine_sha256: str
    verified_at: str
    passed: bool
    reference: ReferenceKind
    images: str
    images_sha256: str
    image_count: int
    changed_gates: tuple[str, ...]
    contract_id: str
    weights_sha256: str
    created_by: str


def check_verified(engine: Engine, bundle: Bundle, target: str) -> None:
    """Raise an error unless exactly this engine passed a verification for this bundle.

    Args:
        engine: the engine, whose bytes were compared with its sidecar.
        bundle: the bundle that the engine is used with.
        target: the name of the target, for the message.

    Raises:
        EngineError: if the engine was not verified, failed, or was verified as other bytes or for another
            model; the message has the command that verifies it.
    """
    if problem := _problem(engine, bundle):
        raise EngineError(f"{engine.path}: {problem}: {_remedy(bundle.path, target)}")


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


def _remedy(bundle: Path, target: str) -> str:
    return f"run ccr-deploy verify {bundle} --target {target}, on a device with --golden FILE"
