"""Write a bundle, so that after a killed command it is the old one or the new one."""

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

_BUNDLE_FILE = re.compile(
    r"[a-z0-9.-]+\.[0-9a-f]{12}\.(onnx|safetensors|png|json)"
    r"|\.[a-z0-9.-]+\.(onnx|safetensors|png|json)\.tmp|\.manifest\.json\.\w+\.tmp"
)
"""The names that this module gives to files, finished and temporary."""
_BUNDLE_MANIFEST = b'"created_by": "ccr-deploy '
"""Identifies a manifest of this program, even a damaged one: other programs write a ``manifest.json`` too."""


@dataclass(frozen=True)
class BundleWriter:
    """Adds files to a bundle's folder; they become part of the bundle when the manifest is replaced."""

    path: Path

    def add(self, stem: str, suffix: str, write: Callable[[Path], object]) -> FileRecord:
        """Write a new file, named ``stem.<hash>suffix``, and return its record.

        Args:
            stem: the first part of its name, such as ``encoder.fp32.layer-major``.
            suffix: the last part of its name, such as ``.onnx``.
            write: called with a temporary path, to write the content to.
        """
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
        """Replace the manifest by one rename, then remove the files that it does not list.

        Before the rename, the new manifest and every file that it lists are read back and checked.

        Raises:
            BundleError: if they do not read back as written; the old bundle stays.
        """
        path = self.path / MANIFEST
        with atomic_file(path) as temporary:
            temporary.write_text(to_json(manifest, nan=True) + "\n", encoding="utf-8")
            # Parsing also refuses non-finite numbers, which to_json let through.
            written = parse_manifest(read_bytes(temporary), path)
            if written != manifest:
                raise BundleError(
                    f"{path}: the new manifest does not read back as written: the old bundle was kept"
                )
            for file in written.files():
                Bundle(self.path, written).file(file)
        _prune(self.path, {file.name for file in manifest.files()})


@contextmanager
def writing_bundle(path: Path) -> Iterator[BundleWriter]:
    """Lock a bundle's folder, created if necessary, and yield its writer.

    If the body fails or is interrupted, the folder is restored to its previous content.

    Raises:
        WrongUsageError: if the folder contains files that are not a bundle's.
        BundleError: if it cannot be written, or another command is writing to it.
    """
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    with writing(path, BundleError):
        path.mkdir(parents=True, exist_ok=True)
        with locked_folder(path, BundleError):
            _check_no_foreign_files(path)
            found = {entry.name for entry in path.iterdir()}
            try:
                yield BundleWriter(path)
            except BaseException:
                # The manifest may have been replaced before the error; then its new files stay.
                _prune(path, found | _named_files(path))
                with suppress(OSError):  # not empty if the manifest was replaced before the error
                    for folder in created:  # from the innermost outwards
                        folder.rmdir()
                raise


def _check_no_foreign_files(folder: Path) -> None:
    if foreign := sorted(entry.name for entry in folder.iterdir() if not _belongs_to_bundle(entry)):
        raise WrongUsageError(
            f"{folder}: contains files that are not a bundle's ({', '.join(foreign[:3])}): "
            "choose another folder"
        )


def _belongs_to_bundle(entry: Path) -> bool:
    if entry.name == MANIFEST:
        return _BUNDLE_MANIFEST in read_bytes(entry)
    return _BUNDLE_FILE.fullmatch(entry.name) is not None


def _named_files(folder: Path) -> set[str]:
    """Return the names of the files that the manifest lists; empty if it is missing or damaged."""
    try:
        manifest = parse_manifest(read_bytes(folder / MANIFEST), folder / MANIFEST)
    except (OSError, BundleError):
        return set()
    return {file.name for file in manifest.files()}


def _prune(folder: Path, keep: set[str]) -> None:
    for entry in folder.iterdir():
        if _BUNDLE_FILE.fullmatch(entry.name) and entry.name not in keep:
            entry.unlink()
