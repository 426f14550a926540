"""Read a bundle: a folder with all that a device needs to build engines.

::

    bundle/
      manifest.json                                  model, contract, and the list of files
      encoder.fp32.iteration-major.<hash>.onnx       graphs
      classifier.fp32.<hash>.onnx
      encoder.int8.iteration-major.<hash>.onnx
      calibration.<hash>.json                        calibration table of the INT8 graphs
      weights.<hash>.safetensors                     for the PyTorch reference
      sample.<hash>.png                              a few images to verify engines with

A file's name contains part of its SHA-256, and files are never rewritten. A command adds files, replaces the
manifest by one rename, then removes the files that the new manifest does not list. So after a killed command
the bundle is the old one or the new one, never a mixture.
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
    """An opened bundle: its folder and manifest. Read-only."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read and check the manifest, and check that every file exists and has its size.

        Raises:
            WrongUsageError: if there is no bundle at `path`.
            BundleError: if the manifest is damaged or has another version, or a file is missing or truncated.
        """
        bundle = cls.read(path)
        for file in bundle.manifest.files():
            bundle._check_size(file)  # the SHA-256 is checked when a file is used, since it takes time
        return bundle

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Read and check only the manifest: to run built engines, no other file is needed.

        Raises:
            WrongUsageError: if there is no bundle at `path`.
            BundleError: if the manifest is damaged or has another version.
        """
        manifest = path / MANIFEST
        with reading(manifest, BundleError):
            try:
                text = read_bytes(manifest)
            except (FileNotFoundError, NotADirectoryError):
                raise WrongUsageError(
                    f"{path}: no bundle found (no {MANIFEST}): "
                    f"create one with ccr-deploy export --checkpoint FILE {path}"
                ) from None
        return cls(path, parse_manifest(text, manifest))

    def file(self, record: FileRecord) -> Path:
        """Return the path of one of the bundle's files after checking its SHA-256.

        Raises:
            BundleError: if the file is missing, or its size or SHA-256 differs from the manifest's.
        """
        path = self._check_size(record)
        with reading(path, BundleError):
            found = sha256_of(path)
        if found != record.sha256:
            raise BundleError(
                f"{path}: damaged or changed: its SHA-256 is {found[:12]}…, the manifest has "
                f"{record.sha256[:12]}…: {_COPY_AGAIN}"
            )
        return path

    def graph(self, stage: Stage, precision: Precision, schedule: Schedule | None) -> GraphRecord:
        """Return the record of a graph.

        Args:
            stage: the stage that it computes.
            precision: the precision that it computes in.
            schedule: its unroll schedule; None if it is not an encoder.

        Raises:
            WrongUsageError: if the bundle has no such graph; the message says how to add it.
        """
        if graph := self._graphs.get((stage, precision, schedule)):
            return graph
        wanted = " ".join(filter(None, (precision, schedule, stage)))
        raise WrongUsageError(
            f"{self.path}: has no {wanted} graph: {self._how_to_add(stage, precision, schedule)}"
        )

    def has_precision(self, precision: Precision) -> bool:
        """Return whether both encoder and classifier have graphs of a precision."""
        stages = {graph.stage for graph in self.manifest.graphs if graph.precision == precision}
        return stages.issuperset(CHAIN_STAGES)

    @property
    def _graphs(self) -> dict[tuple[Stage, Precision, Schedule | None], GraphRecord]:
        return {(graph.stage, graph.precision, graph.schedule): graph for graph in self.manifest.graphs}

    def _how_to_add(self, stage: Stage, precision: Precision, schedule: Schedule | None) -> str:
        """Return the command or option that adds a missing graph."""
        if stage == "baseline":
            return "export the bundle again with --baseline CHECKPOINT"
        if (stage, "fp32", schedule) not in self._graphs:
            return f"export the bundle again with --schedule {schedule}"
        if PRECISIONS[precision].is_calibrated:
            return f"on the workstation, run ccr-deploy calibrate {self.path} --images DIR"
        option = " without --no-fp16" if precision == "fp16" else ""
        return f"export the bundle again on the workstation{option}"

    def _check_size(self, record: FileRecord) -> Path:
        path = self.path / record.name
        try:
            status = path.stat()
        except OSError:
            raise BundleError(f"{path}: no such file, but {MANIFEST} lists it: {_COPY_AGAIN}") from None
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: not a regular file: {_COPY_AGAIN}")
        if status.st_size != record.bytes:
            raise BundleError(
                f"{path}: damaged or changed: it has {status.st_size} bytes, the manifest has "
                f"{record.bytes}: {_COPY_AGAIN}"
            )
        return path


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal.

    Raises:
        OSError: if it cannot be read or is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
