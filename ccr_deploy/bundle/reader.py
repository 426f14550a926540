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
from ccr_deploy.core.untrusted import open_regular, read_bytes
from ccr_deploy.errors import BundleError, WrongUsageError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import Schedule, Stage


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
        return cls(path, parse_manifest(_read_manifest(path), path / MANIFEST))

    def file(self, record: FileRecord) -> Path:
        """The path of one of the bundle's files, after its SHA-256 was checked.

        Raises:
            BundleError: the file is missing or not the one that the manifest names.
        """
        path = self._check_size(record)
        try:
            found = sha256_of(path)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
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
        raise WrongUsageError(
            f"{self.path}: no {wanted} graph in it: {self._how_to_add(stage, precision, schedule)}"
        )

    def has_precision(self, precision: Precision) -> bool:
        """Whether encoder and classifier have graphs of a precision."""
        stages = {graph.stage for graph in self.manifest.graphs if graph.precision == precision}
        return {"encoder", "classifier"} <= stages

    def _how_to_add(self, stage: Stage, precision: Precision, schedule: Schedule | None) -> str:
        """What puts a missing graph into the bundle."""
        if stage == "baseline":
            return "export it again with --baseline CHECKPOINT"
        has_fp32 = any(
            graph.stage == stage and graph.precision == "fp32" and graph.schedule == schedule
            for graph in self.manifest.graphs
        )
        if not has_fp32:
            return f"export it again with --schedule {schedule}"
        if PRECISIONS[precision].is_calibrated:
            return f"on the workstation, run ccr-deploy calibrate {self.path} --images DIR"
        return "export it again on the workstation, without --no-fp16"

    def _check_size(self, record: FileRecord) -> Path:
        path = self.path / record.name
        try:
            status = path.stat()
        except OSError:
            raise BundleError(
                f"{path}: missing, though {MANIFEST} names it: export or copy the bundle again"
            ) from None
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: not a regular file: export or copy the bundle again")
        if status.st_size != record.bytes:
            raise BundleError(
                f"{path}: {status.st_size} bytes, the manifest says {record.bytes}: "
                "export or copy the bundle again"
            )
        return path


def _read_manifest(path: Path) -> bytes:
    """The text of the manifest in a bundle's folder.

    Raises:
        WrongUsageError: there is no bundle at `path`.
        BundleError: the manifest cannot be read.
    """
    manifest = path / MANIFEST
    try:
        return read_bytes(manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise WrongUsageError(
            f"{path}: no bundle there (no {MANIFEST}): "
            f"make one with ccr-deploy export --checkpoint FILE {path}"
        ) from None
    except OSError as error:
        raise BundleError(f"{manifest}: cannot be read ({error.strerror})") from error


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
