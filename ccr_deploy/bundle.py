"""The bundle: a directory with all that a device needs to build engines.

::

    bundle/
      manifest.json                                  what is here, and what it means
      encoder.fp32.iteration-major.<hash>.onnx       graphs
      classifier.fp32.<hash>.onnx
      weights.<hash>.safetensors                     for the PyTorch reference
      sample.<hash>.png                              a few images to check with

Files carry part of their own SHA-256 in their name and are never rewritten. A command adds files,
replaces the manifest by one rename, then removes what the new manifest does not name; so a killed
command leaves the old bundle or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ccr_deploy.atomic import write_atomically
from ccr_deploy.contract import CodeContract
from ccr_deploy.errors import BundleError, WrongUsageError, first_problem
from ccr_deploy.models.config import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Self

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
Stage = Literal["encoder", "classifier", "baseline"]
Precision = Literal["fp32"]
Schedule = Literal["plain", "iteration-major", "layer-major"]

_OUR_FILE = re.compile(
    r"[a-z0-9.-]+\.[0-9a-f]{12}\.(onnx|safetensors|png)"
    r"|\.[a-z0-9.-]+\.(onnx|safetensors|png)\.tmp|\.manifest\.json\.\w+\.tmp"
)
_OUR_MANIFEST = b'"created_by": "ccr-deploy '


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """One file of the bundle."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: int


class GraphRecord(_Record):
    """One ONNX graph: what it computes and which file it is.

    Only encoders have a schedule. `graph_hash` is the canonical one of `ccr_deploy.graph_hash`.
    """

    stage: Stage
    precision: Precision
    schedule: Schedule | None
    graph_hash: str
    file: FileRecord


class SampleRecord(_Record):
    """One sample image, already of the image size, and its class where that is known."""

    file: FileRecord
    label: int | None


class BaselineRecord(_Record):
    """The conventional chain that the bundle's baseline graph was made from."""

    model: ModelConfig
    weights: FileRecord


class Manifest(_Record):
    """What a bundle is."""

    schema_version: Literal[1]
    created_by: str
    model: ModelConfig
    class_names: tuple[str, ...]
    metrics: dict[str, float]
    contract: CodeContract
    contract_id: str
    weights: FileRecord
    graphs: tuple[GraphRecord, ...]
    samples: tuple[SampleRecord, ...]
    baseline: BaselineRecord | None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        model, contract = self.model, self.contract
        if (model.image_height, model.image_width, model.iterations, model.encoder.code_channels) != (
            contract.image_height,
            contract.image_width,
            contract.iterations,
            contract.code_channels,
        ):
            raise ValueError("model and contract name different image sizes, iterations or code channels")
        contract.preprocessing.check_covers(model.image_height, model.image_width)
        if len(self.class_names) not in {0, model.classifier.classes}:
            raise ValueError(f"{len(self.class_names)} class names for {model.classifier.classes} classes")
        return self

    def class_name(self, label: int) -> str:
        """The class's name, or its number where the checkpoint had no names."""
        return self.class_names[label] if self.class_names else f"class {label}"

    def files(self) -> list[FileRecord]:
        """Every file that belongs to the bundle."""
        baseline = [self.baseline.weights] if self.baseline else []
        return [
            self.weights,
            *baseline,
            *(graph.file for graph in self.graphs),
            *(sample.file for sample in self.samples),
        ]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened: its folder and its manifest. Nothing here writes into it."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Reads and checks the manifest, and that every file is there with its size.

        Raises:
            WrongUsageError: there is no bundle at `path`.
            BundleError: the manifest is damaged or of another version, or a file is missing or cut.
        """
        manifest_path = path / MANIFEST
        try:
            text = manifest_path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise WrongUsageError(
                f"{path}: no bundle there (no {MANIFEST}): "
                f"make one with ccr-deploy export --checkpoint FILE {path}"
            ) from None
        except OSError as error:
            raise BundleError(f"{manifest_path}: cannot be read ({error.strerror})") from error
        bundle = cls(path, parse_manifest(text, manifest_path))
        for file in bundle.manifest.files():
            bundle._check_size(file)
        return bundle

    def file(self, record: FileRecord) -> Path:
        """The path of one of the bundle's files, after its SHA-256 was checked.

        Raises:
            BundleError: the file is missing or not the one that the manifest names.
        """
        path = self._check_size(record)
        found = sha256_of(path)
        if found != record.sha256:
            raise BundleError(
                f"{path}: damaged: its SHA-256 begins {found[:12]}, the manifest says {record.sha256[:12]}: "
                "export or copy the bundle again"
            )
        return path

    def graph(self, stage: Stage, precision: Precision, schedule: Schedule | None) -> GraphRecord:
        """The graph for a stage.

        Raises:
            WrongUsageError: the bundle has none; the message says how to add it.
        """
        for graph in self.manifest.graphs:
            if (graph.stage, graph.precision, graph.schedule) == (stage, precision, schedule):
                return graph
        wanted = " ".join(filter(None, (precision, schedule, stage)))
        hint = "--baseline CHECKPOINT" if stage == "baseline" else f"--schedule {schedule}"
        raise WrongUsageError(f"{self.path}: no {wanted} graph in it: add it with ccr-deploy export … {hint}")

    def _check_size(self, record: FileRecord) -> Path:
        path = self.path / record.name
        try:
            size = path.stat().st_size
        except OSError:
            raise BundleError(
                f"{path}: missing, though {MANIFEST} names it: export or copy the bundle again"
            ) from None
        if size != record.bytes:
            raise BundleError(
                f"{path}: {size} bytes, the manifest says {record.bytes}: export or copy the bundle again"
            )
        return path


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """The manifest in `text`; `path` is where it came from, for messages.

    Raises:
        BundleError: it is no JSON, of another schema version, has unknown or wrong fields, or its
            contract id is not that of its contract.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{path}: not JSON, perhaps truncated ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}: "
            "export the bundle again or use the version of ccr-deploy that made it"
        )
    try:
        manifest = Manifest.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise BundleError(f"{path}: {first_problem(error)}") from error
    if manifest.contract_id != manifest.contract.contract_id:
        raise BundleError(
            f"{path}: field contract_id: {manifest.contract_id}, "
            f"its contract has {manifest.contract.contract_id}"
        )
    return manifest


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
            record = FileRecord(
                name=f"{stem}.{digest[:12]}{suffix}", sha256=digest, bytes=temporary.stat().st_size
            )
            temporary.replace(self.path / record.name)
        finally:
            temporary.unlink(missing_ok=True)
        return record

    def commit(self, manifest: Manifest) -> None:
        """Replaces the manifest by one rename, then removes what it does not name."""
        text = manifest.model_dump_json(indent=2) + "\n"
        write_atomically(self.path / MANIFEST, text.encode())
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
    try:
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            _check_ours(path)
            found = {entry.name for entry in path.iterdir()}
            try:
                yield BundleWriter(path)
            except BaseException:
                _prune(path, found | _named_files(path))
                with contextlib.suppress(OSError):  # not empty: the manifest was replaced before the error
                    for folder in created:
                        folder.rmdir()
                raise
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BundleError(f"{folder}: another command is writing to it: wait for it to end") from None
    finally:
        os.close(descriptor)


def _check_ours(folder: Path) -> None:
    foreign = sorted(entry.name for entry in folder.iterdir() if not _is_ours(entry))
    if foreign:
        raise WrongUsageError(
            f"{folder}: holds something else than a bundle ({', '.join(foreign[:3])}): name another folder"
        )


def _is_ours(entry: Path) -> bool:
    if entry.name == MANIFEST:
        return _OUR_MANIFEST in entry.read_bytes()
    return _OUR_FILE.fullmatch(entry.name) is not None


def _named_files(folder: Path) -> set[str]:
    """What the manifest names; nothing where it is missing or damaged."""
    try:
        manifest = parse_manifest((folder / MANIFEST).read_bytes(), folder / MANIFEST)
    except (OSError, BundleError):
        return set()
    return {file.name for file in manifest.files()}


def _prune(folder: Path, keep: set[str]) -> None:
    for entry in folder.iterdir():
        if _OUR_FILE.fullmatch(entry.name) and entry.name not in keep:
            entry.unlink()


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
