"""A model repository on disk: written beside its place, and put there by renames.

::

    repository/
      ccr-deploy.json              what this folder is, and which versions it holds
      encoder/config.pbtxt         one for all versions
      encoder/1/model.onnx
      payload/1/model.py  …

A new repository appears by one rename. An existing one, which Triton may be serving, gets one more version
folder in every model; the files that all versions share are replaced one by one, and only where they
changed, because Triton loads every version of a model anew when it sees one of them change.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ccr_deploy.core.atomic import flush, locked_folder
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record, parse_versioned_json
from ccr_deploy.core.stages import Stage
from ccr_deploy.core.untrusted import read_bytes, reading
from ccr_deploy.errors import RepositoryError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SCHEMA_VERSION = 2
RECORD = "ccr-deploy.json"


class Interface(Record, frozen=True):
    """What all versions share: the backend, and the shapes that go in and out."""

    backend: str
    image_height: int
    image_width: int
    code_bytes: int
    classes: int


class VersionRecord(Record, frozen=True):
    """Where one version came from.

    `library_version` is the version of TensorRT that the server must have, `compute_capabilities` are those
    with a plan of their own; both are empty for ONNX Runtime.
    """

    version: int
    created_by: str
    contract_id: str
    weights_sha256: str
    target: str
    precisions: dict[Stage, EnginePrecision]
    library_version: str | None
    compute_capabilities: tuple[str, ...]


class RepositoryRecord(Record, frozen=True):
    """The repository's own file, which Triton does not look at."""

    schema_version: int
    interface: Interface
    versions: tuple[VersionRecord, ...]


def read_repository(path: Path) -> RepositoryRecord | None:
    """The record of the repository at `path`; None where there is nothing yet.

    Raises:
        WrongUsageError: there is something else.
        RepositoryError: the record is damaged.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    record = path / RECORD
    if not record.is_file():
        raise WrongUsageError(f"{path}: holds something else than a model repository: name another folder")
    remedy = "package into another folder"
    with reading(record, RepositoryError, f": {remedy}"):
        text = read_bytes(record)
    return parse_versioned_json(
        RepositoryRecord, text, record, version=SCHEMA_VERSION, error=RepositoryError, remedy=remedy
    )


def next_version(path: Path, record: RepositoryRecord | None) -> int:
    """A number above those of all versions, also of one that a killed command left."""
    folders = (int(entry.name) for entry in path.glob("*/*") if entry.name.isdecimal() and entry.is_dir())
    recorded = (entry.version for entry in record.versions) if record else ()
    return 1 + max((*folders, *recorded), default=0)


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """An empty folder beside `output`, on the same disk, for this command alone; it is removed at the end.

    Raises:
        RepositoryError: another command is packaging to `output`.
    """
    staging = output.with_name(f".{output.name}.packaging")
    staging.mkdir(parents=True, exist_ok=True)
    with locked_folder(staging, RepositoryError):
        try:
            for left in staging.iterdir():  # by a command that was killed
                shutil.rmtree(left)
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def publish(staged: Path, output: Path, version: int, models: Sequence[str]) -> None:
    """Puts a staged repository of one version in the place of nothing, or adds its version to what is there.

    `models` are in the order in which they are added, those that others are made of first. What fails or is
    interrupted half-way is undone.
    """
    flush(staged)
    if read_repository(output) is None:
        staged.replace(output)
        return
    with ExitStack() as undo:
        for model in models:
            folder = output / model / str(version)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            (staged / model / str(version)).replace(folder)
            for file in sorted(path for path in (staged / model).iterdir() if path.is_file()):
                _replace(file, output / model / file.name, undo)
        _replace(staged / RECORD, output / RECORD, undo)
        undo.pop_all()


def _replace(new: Path, path: Path, undo: ExitStack) -> None:
    if path.read_bytes() == new.read_bytes():
        return
    old = new.with_name(f"{new.name}.old")
    shutil.copy2(path, old)
    undo.callback(old.replace, path)
    new.replace(path)
