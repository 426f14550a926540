"""A model repository on disk: written to a folder beside it, then moved into place by renames.

::

    repository/
      ccr-deploy.json              the repository's interface and versions
      encoder/config.pbtxt         shared by all versions
      encoder/1/model.onnx
      payload/1/model.py  …

A new repository appears by one rename. An existing one, which Triton may be serving, gets a new version
folder in every model. The shared files are replaced one by one, and only if they changed, because Triton
reloads all versions of a model when one of them changes.
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
    """The common properties of all versions: the backend and the shapes of inputs and outputs."""

    backend: str
    image_height: int
    image_width: int
    code_bytes: int
    classes: int


class VersionRecord(Record, frozen=True):
    """The origin of one version.

    `library_version` is the version of TensorRT that the server must have; `compute_capabilities` are those
    that have their own plan. Both are empty for ONNX Runtime.
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
    """The content of `ccr-deploy.json`, which Triton ignores."""

    schema_version: int
    interface: Interface
    versions: tuple[VersionRecord, ...]


def read_repository(path: Path) -> RepositoryRecord | None:
    """Return the record of the repository at `path`, None if the folder is missing or empty.

    Raises:
        WrongUsageError: if the folder is not a model repository.
        RepositoryError: if the record is damaged.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    record = path / RECORD
    if not record.is_file():
        raise WrongUsageError(f"{path}: not a model repository of ccr-deploy: choose another folder")
    remedy = "package into another folder"
    with reading(record, RepositoryError, f": {remedy}"):
        text = read_bytes(record)
    return parse_versioned_json(
        RepositoryRecord, text, record, version=SCHEMA_VERSION, error=RepositoryError, remedy=remedy
    )


def next_version(path: Path, record: RepositoryRecord | None) -> int:
    """Return a number above all version numbers, including those that a killed command left."""
    folders = (int(entry.name) for entry in path.glob("*/*") if entry.name.isdecimal() and entry.is_dir())
    recorded = (entry.version for entry in record.versions) if record else ()
    return 1 + max((*folders, *recorded), default=0)


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """Create an empty folder beside `output`, locked for this command, and remove it at the end.

    Raises:
        RepositoryError: if another command is packaging to `output`.
    """
    staging = output.with_name(f".{output.name}.packaging")
    staging.mkdir(parents=True, exist_ok=True)
    with locked_folder(staging, RepositoryError):
        try:
            for left in staging.iterdir():  # left by a killed command
                shutil.rmtree(left)
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def publish(staged: Path, output: Path, version: int, models: Sequence[str]) -> None:
    """Move a staged repository into place, or add its version to the existing repository.

    A failure or interruption half-way is undone.

    Args:
        staged: the staged repository, with one version.
        output: the repository's folder.
        version: the number of the staged version.
        models: the names of the models, in the order in which they are added: ensembles after their steps.
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
