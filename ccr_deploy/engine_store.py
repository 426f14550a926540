"""The engine store: built engines, outside the bundle, keyed by what they were built from and for.

::

    store/
      3f0c1d…/                      the key: graph, backend and version, device, resolved target
        encoder.fp32.onnx           a plain file of the backend's own format
        encoder.fp32.onnx.json      its sidecar: what the key was made of, and the engine's SHA-256
      chosen.5a19c0….json           the precision that was last built for a bundle and target

A folder appears whole, by one rename. The sidecar is checked before the engine's bytes reach its
library.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import platformdirs
import pydantic

from ccr_deploy.atomic import write_atomically
from ccr_deploy.bundle import Schedule, Stage, sha256_of
from ccr_deploy.errors import EngineError
from ccr_deploy.precisions import EnginePrecision
from ccr_deploy.records import Record, parse_versioned_json
from ccr_deploy.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ccr_deploy.bundle import Bundle

SCHEMA_VERSION = 1
ENVIRONMENT_VARIABLE = "CCR_DEPLOY_ENGINES"
_BUILDING = ".building-"


class EngineKey(Record):
    """What makes two engines the same: built from the same, for the same.

    `source_hash` is the canonical graph hash; the PyTorch reference's is of weights and configuration.
    """

    stage: Stage
    precision: EnginePrecision
    schedule: Schedule | None
    source_hash: str
    backend: str
    backend_version: str
    device: str
    target_digest: str

    @property
    def digest(self) -> str:
        """The name of the engine's folder."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


class Sidecar(Record):
    """What stands beside an engine."""

    schema_version: Literal[1]
    key: EngineKey
    target: str
    created_by: str
    build_seconds: float
    engine_bytes: int
    engine_sha256: str
    verdict: Verdict | None = None


class Choice(Record):
    """The precision that was last built for a bundle and target, by stage."""

    target: str
    precisions: dict[Stage, EnginePrecision]


@dataclass(frozen=True)
class Engine:
    """A built engine whose sidecar and bytes were checked."""

    path: Path
    sidecar: Sidecar


@dataclass(frozen=True)
class EngineStore:
    """A folder of engines."""

    path: Path

    @classmethod
    def default(cls, chosen: Path | None = None) -> EngineStore:
        """The chosen folder, else that in ``$CCR_DEPLOY_ENGINES``, else one in the user's cache."""
        named = chosen or os.environ.get(ENVIRONMENT_VARIABLE)
        return cls(Path(named) if named else Path(platformdirs.user_cache_dir("ccr-deploy")) / "engines")

    def find(self, key: EngineKey, suffix: str) -> Engine | None:
        """The engine of that key, checked; None where it was not built.

        Raises:
            EngineError: its sidecar is missing or damaged, or one of the two belongs to another engine.
        """
        path = self._engine_path(key, suffix)
        if not path.parent.is_dir():
            return None
        if not path.is_file():
            raise EngineError(f"{path}: missing from its folder: build it again with --no-cache")
        sidecar = _read_sidecar(path)
        for field, expected in key.model_dump().items():
            found = getattr(sidecar.key, field)
            if found != expected:
                raise EngineError(
                    f"{path}: its sidecar's {field} is {found}, expected {expected}: build it again"
                )
        found_hash = sha256_of(path)
        if found_hash != sidecar.engine_sha256:
            raise EngineError(
                f"{path}: changed since it was built: its SHA-256 begins {found_hash[:12]}, its sidecar says "
                f"{sidecar.engine_sha256[:12]}: build it again with --no-cache"
            )
        return Engine(path, sidecar)

    def build(
        self, key: EngineKey, suffix: str, *, target: str, created_by: str, write: Callable[[Path], object]
    ) -> Engine:
        """Lets `write` fill the engine's file and puts its folder in place, sidecar and all, by a rename.

        Raises:
            EngineError: the store cannot be written, or whatever `write` raises.
        """
        path = self._engine_path(key, suffix)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            with tempfile.TemporaryDirectory(prefix=f"{_BUILDING}{os.getpid()}-", dir=self.path) as folder:
                new = Path(folder) / "engine"
                new.mkdir()
                engine = new / path.name
                started = time.perf_counter()
                write(engine)
                sidecar = Sidecar(
                    schema_version=SCHEMA_VERSION,
                    key=key,
                    target=target,
                    created_by=created_by,
                    build_seconds=round(time.perf_counter() - started, 3),
                    engine_bytes=engine.stat().st_size,
                    engine_sha256=sha256_of(engine),
                )
                sidecar_path(engine).write_text(sidecar.model_dump_json(indent=2) + "\n", encoding="utf-8")
                if path.parent.exists():
                    path.parent.replace(Path(folder) / "old")
                new.replace(path.parent)
        except OSError as error:
            raise EngineError(
                f"{self.path}: the engine store cannot be written ({error.strerror or error})"
            ) from error
        return Engine(path, sidecar)

    def add_verdict(self, engine: Engine, verdict: Verdict) -> Engine:
        """Notes in an engine's sidecar how it compared with the other precisions.

        Raises:
            EngineError: the store cannot be written.
        """
        sidecar = engine.sidecar.model_copy(update={"verdict": verdict})
        self._write(sidecar_path(engine.path), sidecar)
        return Engine(engine.path, sidecar)

    def choose(self, bundle: Bundle, target: str, precisions: Mapping[Stage, EnginePrecision]) -> None:
        """Remembers which precision was built for a bundle and target: what runs next uses it.

        Raises:
            EngineError: the store cannot be written.
        """
        stages = {**self.chosen(bundle, target), **precisions}
        self._write(self._choice_path(bundle, target), Choice(target=target, precisions=stages))

    def chosen(self, bundle: Bundle, target: str) -> dict[Stage, EnginePrecision]:
        """The precision that was last built for a bundle and target, by stage; empty where none was.

        Raises:
            EngineError: the note is damaged.
        """
        path = self._choice_path(bundle, target)
        try:
            return Choice.model_validate_json(path.read_bytes()).precisions
        except FileNotFoundError:
            return {}
        except (OSError, pydantic.ValidationError) as error:
            raise EngineError(f"{path}: damaged: remove it, then run ccr-deploy build-engine") from error

    def _write(self, path: Path, record: Record) -> None:
        try:
            write_atomically(path, (record.model_dump_json(indent=2) + "\n").encode())
        except OSError as error:
            raise EngineError(f"{path}: cannot be written ({error.strerror or error})") from error

    def _choice_path(self, bundle: Bundle, target: str) -> Path:
        parts = (bundle.manifest.contract_id, bundle.manifest.weights.sha256, target)
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
        return self.path / f"chosen.{digest}.json"

    def _engine_path(self, key: EngineKey, suffix: str) -> Path:
        return self.path / key.digest / f"{key.stage}.{key.precision}{suffix}"

    def _remove_abandoned(self) -> None:
        """Clears what killed builds left: their folders say which process they were."""
        for folder in self.path.glob(f"{_BUILDING}*"):
            process = folder.name.removeprefix(_BUILDING).partition("-")[0]
            if process.isdecimal() and not _is_running(int(process)):
                shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sidecar_path(engine: Path) -> Path:
    """Where an engine's sidecar stands."""
    return engine.with_name(engine.name + ".json")


def _read_sidecar(engine: Path) -> Sidecar:
    path = sidecar_path(engine)
    try:
        text = path.read_bytes()
    except OSError:
        raise EngineError(
            f"{path}: missing: an engine without its sidecar is not loaded; build it again"
        ) from None
    return parse_versioned_json(
        Sidecar, text, path, version=SCHEMA_VERSION, error=EngineError, remedy="build it again"
    )
