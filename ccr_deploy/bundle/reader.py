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

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ccr_deploy.bundle.accuracy import PrecisionAccuracy
from ccr_deploy.bundle.facts import (
    MANIFEST,
    REMEDY,
    SCHEMA_VERSION,
    BundleFacts,
    FileRecord,
    GraphRecord,
    NetworkFacts,
    check_class_names,
    check_contract_id,
    read_manifest,
    sha256_of,
)
from ccr_deploy.codec.contract import CodeContract
from ccr_deploy.core.pydantic_records import Record, parse_versioned_json
from ccr_deploy.core.stages import Schedule, Stage
from ccr_deploy.errors import BundleError
from ccr_deploy.models.config import ModelConfig
from ccr_deploy.models.iterations import TrainedIterations, untrained_warning

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from ccr_deploy.core.precisions import Precision

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "BaselineRecord",
    "Bundle",
    "CalibrationRecord",
    "FileRecord",
    "GraphRecord",
    "Manifest",
    "SampleRecord",
    "Schedule",
    "Stage",
    "parse_manifest",
    "sha256_of",
]


class SampleRecord(Record):
    """One sample image, already of the image size, and its class where that is known."""

    file: FileRecord
    label: int | None


class BaselineRecord(Record):
    """The conventional chain that the bundle's baseline graph was made from."""

    model: ModelConfig
    trained_iterations: TrainedIterations
    weights: FileRecord


class CalibrationRecord(Record):
    """The table that the bundle's INT8 graphs come from, and what each precision was found to cost.

    `accuracies` were computed from the graphs on the held-out pictures that `images` describes; they are
    empty where there were none. `high_precision` are the layers that are not quantized.
    """

    table: FileRecord
    high_precision: tuple[str, ...]
    images: str
    accuracies: tuple[PrecisionAccuracy, ...]


class Manifest(Record):
    """What a bundle is; `trained_iterations` is every T that the weights were trained with."""

    schema_version: Literal[2]
    created_by: str
    model: ModelConfig
    trained_iterations: TrainedIterations
    class_names: tuple[str, ...]
    metrics: dict[str, float]
    contract: CodeContract
    contract_id: str
    weights: FileRecord
    graphs: tuple[GraphRecord, ...]
    samples: Annotated[tuple[SampleRecord, ...], Field(min_length=1)]
    baseline: BaselineRecord | None
    calibration: CalibrationRecord | None

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
        classes = model.classifier.classes
        check_class_names(self.class_names, classes)
        labels = [sample.label for sample in self.samples if sample.label is not None]
        if wrong := [label for label in labels if not 0 <= label < classes]:
            raise ValueError(f"a sample's label is {wrong[0]}, there are {classes} classes")
        return self

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each network that runs with a T that was not trained."""
        networks: list[tuple[str, Manifest | BaselineRecord]] = [("checkpoint", self)]
        if self.baseline:
            networks.append(("baseline", self.baseline))
        lines = (
            untrained_warning(name, network.model.iterations, network.trained_iterations)
            for name, network in networks
        )
        return tuple(line for line in lines if line)

    def class_name(self, label: int) -> str:
        """The class's name, or its number where the checkpoint had no names."""
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"

    def input_shapes(self, stage: Stage) -> dict[str, tuple[int, ...]]:
        """The shapes of a stage's inputs behind the batch, by name."""
        if stage == "classifier":
            return {"code": (self.contract.code_bytes,)}
        model = self.baseline.model if stage == "baseline" and self.baseline else self.model
        return {"image": (model.image_height, model.image_width, 3)}

    def files(self) -> list[FileRecord]:
        """Every file that belongs to the bundle."""
        return [
            self.weights,
            *([self.baseline.weights] if self.baseline else []),
            *([self.calibration.table] if self.calibration else []),
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
        bundle = cls(path, parse_manifest(read_manifest(path), path / MANIFEST))
        for file in bundle.manifest.files():
            bundle._check_size(file)
        return bundle

    @property
    def facts(self) -> BundleFacts:
        """What running the bundle's engines takes."""
        manifest = self.manifest
        baseline = manifest.baseline
        return BundleFacts(
            path=self.path,
            model=manifest.model.model_dump(mode="json"),
            class_names=manifest.class_names,
            contract=manifest.contract,
            contract_id=manifest.contract_id,
            weights=manifest.weights,
            graphs=manifest.graphs,
            baseline=NetworkFacts(
                baseline.model.model_dump(mode="json"), baseline.trained_iterations, baseline.weights
            )
            if baseline
            else None,
        )

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
        return self.facts.graph(stage, precision, schedule)

    def has_precision(self, precision: Precision) -> bool:
        """Whether encoder and classifier have graphs of a precision."""
        stages = {graph.stage for graph in self.manifest.graphs if graph.precision == precision}
        return {"encoder", "classifier"} <= stages

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


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """The manifest in `text`; `path` is where it came from, for messages.

    Raises:
        BundleError: it is no JSON, of another schema version, has unknown or wrong fields, or its
            contract id is not that of its contract.
    """
    manifest = parse_versioned_json(
        Manifest, text, path, version=SCHEMA_VERSION, error=BundleError, remedy=REMEDY
    )
    check_contract_id(manifest.contract, manifest.contract_id, path)
    return manifest
