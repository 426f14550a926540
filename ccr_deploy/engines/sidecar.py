"""The sidecar, a JSON file beside an engine, and the checks that an engine must pass before it is loaded."""

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

SCHEMA_VERSION = 5
_BUILD_AGAIN = "run ccr-deploy build-engine with --no-cache"


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


class EngineKey(Record, frozen=True):
    """The identity of an engine: what it is built from, and what it is built for.

    `source_hash` is the canonical graph hash from the bundle's manifest, and `graph_sha256` is the SHA-256 of
    the graph's file. The file is checked whenever an engine is built or found, so that a bundle whose
    manifest states a wrong hash cannot provide engines to another bundle. The PyTorch reference has no graph;
    its `source_hash` is that of its weights and configuration. `weight_bits` is the number of bits of an INT8
    engine's weights, 7 if sums of 8-bit products would saturate on the CPU. `revision` is raised when the
    backend builds a different engine from the same graph.
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
    """The origin of an engine: program, target and graph.

    `graph_file` is the name of the graph in the bundle; `quantized_convolutions` of its `convolutions` have
    Q/DQ pairs. All three are None for the PyTorch reference, which has no graph.
    """

    created_by: str
    target: str
    resolved_target: ResolvedTarget
    graph_file: str | None
    convolutions: int | None
    quantized_convolutions: int | None


class Sidecar(Record, frozen=True):
    """The content of a sidecar.

    `verdict` and `verification` are added by later commands; a new build has neither.
    """

    schema_version: int
    key: EngineKey
    origin: EngineOrigin
    build_seconds: float
    build: BuildFacts
    engine_bytes: int
    engine_sha256: str
    verdict: Verdict | None = None
    verification: Verification | None = None


def sidecar_path(engine: Path) -> Path:
    """Return the path of an engine's sidecar."""
    return engine.with_name(engine.name + ".json")


def read_sidecar(engine: Path) -> Sidecar:
    """Read the sidecar of an engine.

    Raises:
        EngineError: if the engine or its sidecar is missing, or the sidecar is damaged.
    """
    if not engine.is_file():
        raise EngineError(f"{engine}: no such file: {_BUILD_AGAIN}")
    path = sidecar_path(engine)
    if not path.exists():
        raise EngineError(
            f"{path}: no such file, and an engine without its sidecar is not loaded: {_BUILD_AGAIN}"
        )
    with reading(path, EngineError, f": {_BUILD_AGAIN}"):
        text = read_bytes(path)
    return parse_versioned_json(
        Sidecar, text, path, version=SCHEMA_VERSION, error=EngineError, remedy=_BUILD_AGAIN
    )


def check_fields(engine: Path, sidecar: Sidecar, expected: Mapping[str, object]) -> None:
    """Compare fields of a sidecar's key with expected values.

    Args:
        engine: the engine's file, for the message.
        sidecar: its sidecar.
        expected: the expected values by field.

    Raises:
        EngineError: if a field has another value.
    """
    for field, value in expected.items():
        found = getattr(sidecar.key, field)
        if found != value:
            raise EngineError(f"{engine}: its sidecar's {field} is {found}, expected {value}: {_BUILD_AGAIN}")


def check_hash(engine: Path, sidecar: Sidecar, found: str) -> None:
    """Compare the SHA-256 of an engine with its sidecar.

    Args:
        engine: the engine's file, for the message.
        sidecar: its sidecar.
        found: the SHA-256 of the engine's bytes, in hexadecimal digits.

    Raises:
        EngineError: if they differ.
    """
    if found != sidecar.engine_sha256:
        raise EngineError(
            f"{engine}: damaged or changed: its SHA-256 is {found[:12]}…, its sidecar has "
            f"{sidecar.engine_sha256[:12]}…: {_BUILD_AGAIN}"
        )
