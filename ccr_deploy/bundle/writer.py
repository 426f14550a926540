"""Writing a bundle so that a killed command leaves the old one or the new one."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.bundle.manifest import MANIFEST, FileRecord, parse_manifest
from ccr_deploy.bundle.reader import Bundle, sha256_of
from ccr_deploy.core.atomic import atomic_file, locked_folder, writing
from ccr_deploy.core.records import to_json
from ccr_deploy.core.untrusted import read_bytes
from ccr_deploy.errors import BundleError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ccr_deploy.bundle.manifest import Manifest

_OUR_FILE = re.compile(
    r"[a-z0-9.-]+\.[0-9a-f]{12}\.(onnx|safetensors|png|json)"
    r"|\.[a-z0-9.-]+\.(onnx|safetensors|png|json)\.tmp|\.manifest\.json\.\w+\.tmp"
)
_OUR_MANIFEST = b'"created_by": "ccr-deploy '


@dataclass(frozen=True)
class BundleWriter:
    """Adds files to a bundle's folder; nothing counts until the manifest is replaced."""

    path: Path

    def add(self, stem: str, suffix: str, write: Callable[[Path], object]) -> FileRecord:
        """Lets `write` fill a new file and names it ``stem.<hash>suffix``."""
        temporary = self.path / f".{stem}{suffix}.tmp"
        try:
            write(temporary)
            digest = sha256_of(temporary)
            record = FileRecord(f"{stem}.{digest[:12]}{suffix}", digest, temporary.stat().st_size)
            temporary.replace(self.path / record.name)
        finally:
            temporary.unlink(missing_ok=True)
        return record

    def commit(self, manifest: Manifest) -> None:
        """Replaces the manifest by one rename, then removes what it does not name.

        Before that, what was written is read back: the new manifest, and every file that it names.

        Raises:
            BundleError: it does not come back as it was meant; the old bundle stays.
        """
        path = self.path / MANIFEST
        with atomic_file(path) as temporary:
            temporary.write_text(to_json(manifest, nan=True) + "\n", encoding="utf-8")
            # Which also refuses numbers that are not finite.
            written = parse_manifest(read_bytes(temporary), path)
            if written != manifest:
                raise BundleError(f"{path}: would not be read as it was meant: nothing was changed")
            for file in written.files():
                Bundle(self.path, written).file(file)
        _prune(self.path, {file.name for file in manifest.files()})


@contextmanager
def writing_bundle(path: Path) -> Iterator[BundleWriter]:
    """Locks a bundle's folder, which is created if need be, and yields what writes to it.

    When the body fails, or is interrupted, the folder is left as it was found.

    Raises:
        WrongUsageError: the folder holds something else than a bundle.
        BundleError: it cannot be written, or another command is writing to it.
    """
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    with writing(path, BundleError):
        path.mkdir(parents=True, exist_ok=True)
        with locked_folder(path, BundleError):
            _check_ours(path)
            found = {entry.name for entry in path.iterdir()}
            try:
                yield BundleWriter(path)
            except BaseException:
                _prune(path, found | _named_files(path))
                with suppress(OSError):  # not empty: the manifest was replaced before the error
                    for folder in created:
                        folder.rmdir()
                raise


def _check_ours(folder: Path) -> None:
    if foreign := sorted(entry.name for entry in folder.iterdir() if not _is_ours(entry)):
        raise WrongUsageError(
            f"{folder}: holds something else than a bundle ({', '.join(foreign[:3])}): name another folder"
        )


def _is_ours(entry: Path) -> bool:
    if entry.name == MANIFEST:
        return _OUR_MANIFEST in read_bytes(entry)
    return _OUR_FILE.fullmatch(entry.name) is not None


def _named_files(folder: Path) -> set[str]:
    """What the manifest names; nothing where it is missing or damaged."""
    try:
        manifest = parse_manifest(read_bytes(folder / MANIFEST), folder / MANIFEST)
    except (OSError, BundleError):
        return set()
    return {file.name for file in manifest.files()}


def _prune(folder: Path, keep: set[str]) -> None:
    for entry in folder.iterdir():
        if _OUR_FILE.fullmatch(entry.name) and entry.name not in keep:
            entry.unlink()
