"""The bundle: a directory with all that a device needs to build engines.

::

    bundle/
      manifest.json                                  what is here, and what it means
      encoder.fp32.iteration-major.<hash>.onnx       graphs
      classifier.fp32.<hash>.onnx
      encoder.int8.iteration-major.<hash>.onnx
      calibration.<hash>.json                        the ranges that the INT8 graphs come from
      weights.<hash>.safetensors                     for the PyTorch reference
      sample.<hash>.png                              a few images to check with

Files carry part of their own SHA-256 in their name and are never rewritten. A command adds files,
replaces the manifest by one rename, then removes what the new manifest does not name; so a killed
command leaves the old bundle or the new one.
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.bundle.manifest import MANIFEST, FileRecord, GraphRecord, Manifest, parse_manifest
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.core.untrusted import open_regular, read_bytes, reading
from ccr_deploy.errors import BundleError, WrongUsageError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import Schedule, Stage

_COPY_AGAIN = "export or copy the bundle again"


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
        bundle = cls.read(path)
        for file in bundle.manifest.files():
            bundle._check_size(file)
        return bundle

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Read and check the manifest alone: running built engines needs none of the other files.

        Raises:
            WrongUsageError: there is no bundle at `path`.
            BundleError: the manifest is damaged or of another version.
        """
        manifest = path / MANIFEST
        with reading(manifest, BundleError):
            try:
                text = read_bytes(manifest)
            except (FileNotFoundError, NotADirectoryError):
                raise WrongUsageError(
                    f"{path}: no bundle there (no {MANIFEST}): "
                    f"make one with ccr-deploy export --checkpoint FILE {path}"
                ) from None
        return cls(path, parse_manifest(text, manifest))

    def file(self, record: FileRecord) -> Path:
        """The path of one of the bundle's files, after its SHA-256 was checked.

        Raises:
            BundleError: the file is missing or not the one that the manifest names.
        """
        path = self._check_size(record)
        with reading(path, BundleError):
            found = sha256_of(path)
        if found != record.sha256:
            raise BundleError(
                f"{path}: damaged: its SHA-256 begins {found[:12]}, the manifest says {record.sha256[:12]}: "
                f"{_COPY_AGAIN}"
            )
        return path

    def graph(self, stage: Stage, precision: Precision, schedule: Schedule | None) -> GraphRecord:
        """The graph for a stage.

        Raises:
            WrongUsageError: the bundle has none; the message says how to add it.
        """
        if graph := self._graphs.get((stage, precision, schedule)):
            return graph
        wanted = " ".join(filter(None, (precision, schedule, stage)))
        raise WrongUsageError(
            f"{self.path}: no {wanted} graph in it: {self._how_to_add(stage, precision, schedule)}"
        )

    def has_precision(self, precision: Precision) -> bool:
        """Whether encoder and classifier have graphs of a precision."""
        stages = {graph.stage for graph in self.manifest.graphs if graph.precision == precision}
        return stages.issuperset(CHAIN_STAGES)

    @property
    def _graphs(self) -> dict[tuple[Stage, Precision, Schedule | None], GraphRecord]:
        return {(graph.stage, graph.precision, graph.schedule): graph for graph in self.manifest.graphs}

    def _how_to_add(self, stage: Stage, precision: Precision, schedule: Schedule | None) -> str:
        """What puts a missing graph into the bundle."""
        if stage == "baseline":
            return "export it again with --baseline CHECKPOINT"
        if (stage, "fp32", schedule) not in self._graphs:
            return f"export it again with --schedule {schedule}"
        if PRECISIONS[precision].is_calibrated:
            return f"on the workstation, run ccr-deploy calibrate {self.path} --images DIR"
        return "export it again on the workstation, without --no-fp16"

    def _check_size(self, record: FileRecord) -> Path:
        path = self.path / record.name
        try:
            status = path.stat()
        except OSError:
            raise BundleError(f"{path}: missing, though {MANIFEST} names it: {_COPY_AGAIN}") from None
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: not a regular file: {_COPY_AGAIN}")
        if status.st_size != record.bytes:
            raise BundleError(
                f"{path}: {status.st_size} bytes, the manifest says {record.bytes}: {_COPY_AGAIN}"
            )
        return path


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
