"""The sidecar: what stands beside an engine, and the checks that an engine must pass before it is loaded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record, canonical_json, parse_versioned_json
from ccr_deploy.core.stages import Schedule, Stage
from ccr_deploy.core.untrusted import read_bytes, reading
from ccr_deploy.engines.verdict import Verdict
from ccr_deploy.errors import EngineError
from ccr_deploy.targets.resolved import ResolvedTarget

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA_VERSION = 4


class EngineKey(Record, frozen=True):
    """What makes two engines the same: built from the same, for the same.

    `source_hash` is the canonical graph hash as the bundle's manifest states it, and `graph_sha256` that of
    the graph's file, which is checked whenever an engine is built or found: a manifest that lies about the
    first cannot lend its engine to another bundle. The PyTorch reference has no graph; its hash is of weights
    and configuration.
    `weight_bits` are those of an INT8 engine's weights, fewer than 8 if the CPU's sums would saturate.
    `revision` counts how often the backend has changed what it builds from the same.
    """

    stage: Stage
    precision: EnginePrecision
    schedule: Schedule | None
    source_hash: str
    graph_sha256: str | None
    backend: str
    backend_version: str
    device: str
    target_digest: str
    weight_bits: Literal[7, 8] | None = None
    revision: int = 1

    @property
    def digest(self) -> str:
        """The name of the engine's folder."""
        return hashlib.sha256(canonical_json(self)).hexdigest()[:24]


class EngineOrigin(Record, frozen=True):
    """Who asked for an engine, and what of a bundle it was built from.

    `graph_file` is the graph's name in the bundle, and `quantized_convolutions` of its `convolutions` have
    Q/DQ pairs; the PyTorch reference has no graph.
    """

    created_by: str
    target: str
    resolved_target: ResolvedTarget
    graph_file: str | None
    convolutions: int | None
    quantized_convolutions: int | None


class Sidecar(Record, frozen=True):
    """What stands beside an engine."""

    schema_version: int
    key: EngineKey
    origin: EngineOrigin
    build_seconds: float
    build: BuildFacts
    engine_bytes: int
    engine_sha256: str
    verdict: Verdict | None = None


def sidecar_path(engine: Path) -> Path:
    """Where an engine's sidecar stands."""
    return engine.with_name(engine.name + ".json")


def read_sidecar(engine: Path) -> Sidecar:
    """The sidecar of an engine that is there.

    Raises:
        EngineError: the engine or its sidecar is missing, or the sidecar is damaged.
    """
    if not engine.is_file():
        raise EngineError(f"{engine}: missing from its folder: build it again with --no-cache")
    path = sidecar_path(engine)
    if not path.exists():
        raise EngineError(f"{path}: missing: an engine without its sidecar is not loaded; build it again")
    remedy = "build it again"
    with reading(path, EngineError, f": {remedy}"):
        text = read_bytes(path)
    return parse_versioned_json(Sidecar, text, path, version=SCHEMA_VERSION, error=EngineError, remedy=remedy)


def check_fields(engine: Path, sidecar: Sidecar, expected: Mapping[str, object]) -> None:
    """Raise an EngineError if a field of the sidecar's key is not as expected."""
    for field, value in expected.items():
        found = getattr(sidecar.key, field)
        if found != value:
            raise EngineError(f"{engine}: its sidecar's {field} is {found}, expected {value}: build it again")


def check_hash(engine: Path, sidecar: Sidecar, found: str) -> None:
    """Raises an EngineError where an engine's SHA-256 is not the sidecar's."""
    if found != sidecar.engine_sha256:
        raise EngineError(
            f"{engine}: changed since it was built: its SHA-256 begins {found[:12]}, its sidecar says "
            f"{sidecar.engine_sha256[:12]}: build it again with --no-cache"
        )
