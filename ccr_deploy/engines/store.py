"""The engine store: a folder of built engines, outside the bundle, by what they were built from and for.

::

    store/
      3f0c1d…/                      the key: graph, backend and version, device, resolved target
        encoder.fp32.onnx           the engine, a file in the backend's own format
        encoder.fp32.onnx.json      its sidecar: the key and the engine's SHA-256
        encoder.fp32.onnx.log       the output of the builder, if it runs in a separate process
      3f0c1d….failed.log            the output of a failed build
      chosen.5a19c0….json           a record of what was last built for a bundle and target
      caches/                       caches that make later builds faster

The folder of a key is written elsewhere and moved to its place with one rename, so that it is always
complete. The sidecar is checked before the engine's bytes reach its library. Only the owner can read and
write the store (`ccr_deploy.core.private_folder`).
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import asdict, replace

from ccr_deploy.backends.build_facts import BuildFacts, log_path
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.core.atomic import folder_lock, working_folder, write_atomically, writing
from ccr_deploy.core.private_folder import check_private_folder, make_private_folder
from ccr_deploy.core.records import Record, canonical_json, convert, to_json
from ccr_deploy.core.stages import Stage
from ccr_deploy.core.untrusted import read_json
from ccr_deploy.engines.sidecar import (
    SCHEMA_VERSION,
    EngineKey,
    EngineOrigin,
    Sidecar,
    Verification,
    check_fields,
    check_hash,
    read_sidecar,
    sidecar_path,
)
from ccr_deploy.engines.verdict import Verdict
from ccr_deploy.errors import EngineError
from ccr_deploy.targets.resolved import ResolvedTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ccr_deploy.bundle.reader import Bundle

ENVIRONMENT_VARIABLE = "CCR_DEPLOY_ENGINES"
_BUILDING = ".building-"
_KEY_FOLDERS = "[0-9a-f]" * 24
_PROBED_BYTES = 1 << 20
"""The size of the test file: a smaller one may still fit on a disk that was too full for an engine."""


class DamagedNoteError(EngineError):
    """The record of what was last built for a bundle and target cannot be read."""


class Choice(Record, frozen=True):
    """The record of what was last built for a bundle and target, by stage."""

    target: str
    stages: dict[Stage, ResolvedTarget]


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
        """Return the store in `chosen`, else in ``$CCR_DEPLOY_ENGINES``, else in the user's cache."""
        named = chosen or os.environ.get(ENVIRONMENT_VARIABLE)
        return cls(Path(named) if named else user_cache() / "ccr-deploy" / "engines")

    def find(self, key: EngineKey, suffix: str) -> Engine | None:
        """Return the engine of a key after checking it; None if it has not been built.

        Raises:
            EngineError: if its sidecar is missing or damaged, the engine or the sidecar belongs to another
                key, or another user may write to the store.
        """
        check_private_folder(self.path)
        path = self._engine_path(key, suffix)
        # A rebuild that was killed between its renames leaves the old engine in its working folder.
        if not path.parent.is_dir() and not self._put_back(path.parent):
            return None
        sidecar = read_sidecar(path)
        check_fields(path, sidecar, asdict(key))
        check_hash(path, sidecar, sha256_of(path))
        return Engine(path, sidecar)

    def similar(self, key: EngineKey) -> Sidecar | None:
        """Return the newest engine of the same graph and precision for another machine or target."""
        same = ("stage", "precision", "schedule", "source_hash", "backend")
        found = []
        for path in self.path.glob("*/*.json"):
            with suppress(OSError, ValueError):  # damaged sidecars are only ignored in this hint
                sidecar = convert(Sidecar, read_json(path))
                if all(getattr(sidecar.key, field) == getattr(key, field) for field in same):
                    found.append((path.stat().st_mtime, sidecar))
        return max(found, key=lambda entry: entry[0])[1] if found else None

    def build(
        self, key: EngineKey, suffix: str, origin: EngineOrigin, write: Callable[[Path], BuildFacts]
    ) -> Engine:
        """Build an engine, and move its folder, with its sidecar, to its place with one rename.

        If `write` fails and leaves a log beside the engine, the log is kept.

        Args:
            key: the key of the engine.
            suffix: the suffix of the backend's engine files.
            origin: the origin of the engine, for its sidecar.
            write: build the engine, write it to the given path, and return facts about the build.

        Raises:
            EngineError: if the store cannot be written, its disk is full, or another user may write to it;
                or whatever `write` raises.
        """
        path = self._engine_path(key, suffix)
        with writing(self.path, EngineError, "the engine store "):
            make_private_folder(self.path)
            # Processes hold this lock while they write such files: a file found under the lock is left over
            # from a process that was killed.
            with folder_lock(self.path):
                for unfinished in (*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")):
                    unfinished.unlink(missing_ok=True)
            with working_folder(self.path, _BUILDING, "", self._put_back_all) as folder:
                new = folder / "engine"
                new.mkdir()
                engine = new / path.name
                started = time.perf_counter()
                facts = self._written(write, engine, key)
                seconds = time.perf_counter() - started - facts.fp16_seconds
                sidecar = Sidecar(
                    schema_version=SCHEMA_VERSION,
                    key=key,
                    origin=origin,
                    build_seconds=round(seconds, 3),
                    build=facts,
                    engine_bytes=engine.stat().st_size,
                    engine_sha256=sha256_of(engine),
                )
                sidecar_path(engine).write_text(to_json(sidecar) + "\n", encoding="utf-8")
                # `find` takes the same lock before it reports a missing engine: between the two renames
                # neither the old nor the new engine is in its place.
                with folder_lock(self.path):
                    if path.parent.exists():
                        path.parent.replace(folder / path.parent.name)
                    new.replace(path.parent)
                self._failed_log(key).unlink(missing_ok=True)
        return Engine(path, sidecar)

    def add_verdict(self, engine: Engine, verdict: Verdict) -> Engine:
        """Add to an engine's sidecar how it compares with other precisions.

        Raises:
            EngineError: if the store cannot be written, or the engine was replaced in the meantime.
        """
        return self._amend(engine, verdict=verdict)

    def add_verification(self, engine: Engine, verification: Verification) -> Engine:
        """Add to an engine's sidecar that it was verified, after comparing the engine with it once more.

        Raises:
            EngineError: if the store cannot be written, or the engine was replaced or changed in the
                meantime.
        """
        check_hash(engine.path, engine.sidecar, sha256_of(engine.path))
        return self._amend(engine, verification=verification)

    def choose(self, bundle: Bundle, target: str, stages: Mapping[Stage, ResolvedTarget]) -> None:
        """Record what was last built for a bundle and target, which later commands use by default.

        A damaged record is replaced.

        Args:
            bundle: the bundle.
            target: the name of the target.
            stages: the stages that were built; the record of other stages is kept.

        Raises:
            EngineError: if the store cannot be written, or another user may write to it.
        """
        try:
            known = {**self.chosen(bundle, target), **stages}
        except DamagedNoteError:
            known = dict(stages)
        self._write(self._choice_path(bundle, target), to_json(Choice(target=target, stages=known)))

    def chosen(self, bundle: Bundle, target: str) -> dict[Stage, ResolvedTarget]:
        """Return what was last built for a bundle and target, by stage; empty if nothing was built.

        Raises:
            DamagedNoteError: if the record cannot be read.
            EngineError: if another user may write to the store.
        """
        check_private_folder(self.path)
        path = self._choice_path(bundle, target)
        try:
            return convert(Choice, read_json(path)).stages
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            remedy = "run ccr-deploy build-engine, which replaces it"
            raise DamagedNoteError(f"{path}: damaged: {remedy}") from error

    @property
    def caches(self) -> Path:
        """The folder of caches that make later builds faster."""
        return self.path / "caches"

    def _written(self, write: Callable[[Path], BuildFacts], engine: Path, key: EngineKey) -> BuildFacts:
        try:
            return write(engine)
        except EngineError as error:
            if reason := _why_no_space(engine.parent):
                raise EngineError(f"{self.path}: the engine store cannot be written ({reason})") from error
            log = log_path(engine)
            if not log.exists():
                raise
            log.replace(self._failed_log(key))
            raise EngineError(f"{error}; the builder's log: {self._failed_log(key)}") from error

    def _failed_log(self, key: EngineKey) -> Path:
        return self.path / f"{key.digest}.failed.log"

    def _amend(self, engine: Engine, **fields: Verdict | Verification) -> Engine:
        """Replace fields of an engine's sidecar, and keep what other commands wrote to the other fields."""
        path = sidecar_path(engine.path)
        with writing(path, EngineError), folder_lock(self.path):
            sidecar = read_sidecar(engine.path)
            if sidecar.engine_sha256 != engine.sidecar.engine_sha256:
                raise EngineError(f"{engine.path}: another command built it again: run this command again")
            amended = replace(sidecar, **fields)
            write_atomically(path, f"{to_json(amended)}\n".encode())
        return Engine(engine.path, amended)

    def _write(self, path: Path, text: str) -> None:
        with writing(path, EngineError), folder_lock(self.path):
            write_atomically(path, f"{text}\n".encode())

    def _choice_path(self, bundle: Bundle, target: str) -> Path:
        parts = (bundle.manifest.contract_id, bundle.manifest.weights.sha256, target)
        digest = hashlib.sha256(canonical_json(parts)).hexdigest()[:24]
        return self.path / f"chosen.{digest}.json"

    def _engine_path(self, key: EngineKey, suffix: str) -> Path:
        return self.path / key.digest / f"{key.stage}.{key.precision}{suffix}"

    def _put_back_all(self, abandoned: Path) -> None:
        for replaced in abandoned.glob(_KEY_FOLDERS):
            _put_back_if_missing(replaced, self.path / replaced.name)

    def _put_back(self, folder: Path) -> bool:
        """Return whether a key's folder exists after moving it back if a killed rebuild had moved it away."""
        with suppress(OSError), folder_lock(self.path):
            for replaced in self.path.glob(f"{_BUILDING}*/{folder.name}"):
                _put_back_if_missing(replaced, folder)
        return folder.is_dir()


def _put_back_if_missing(replaced: Path, folder: Path) -> None:
    if not folder.exists():
        replaced.replace(folder)


def _why_no_space(folder: Path) -> str | None:
    """Return why a folder cannot be written to; None if it can.

    Libraries report a full disk as an error in the graph, so that the disk has to be tested.
    """
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBED_BYTES))
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def user_cache() -> Path:
    """Return the user's cache folder, according to the XDG Base Directory Specification."""
    named = os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else Path.home() / ".cache"
