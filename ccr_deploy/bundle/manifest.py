"""The manifest of a bundle: model, contract, and the records of its files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from ccr_deploy.bundle.accuracy import PrecisionAccuracy
from ccr_deploy.bundle.tolerance import FlipTolerance
from ccr_deploy.codec.contract import CodeContract
from ccr_deploy.core.precisions import Precision
from ccr_deploy.core.records import Record, canonical_json, parse_versioned_json
from ccr_deploy.core.stages import Schedule, Stage
from ccr_deploy.errors import BundleError
from ccr_deploy.models.config import ModelConfig
from ccr_deploy.models.iterations import checked_iterations, untrained_warning

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 3
MANIFEST = "manifest.json"
REMEDY = "export the bundle again or use the version of ccr-deploy that made it"


class FileRecord(Record, frozen=True):
    """One file of the bundle: name, SHA-256 in hexadecimal, and size in bytes."""

    # No slash, so that a name cannot point outside the bundle; \Z, since $ would allow a final newline.
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]*\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    bytes: Annotated[int, Meta(ge=0)]


class GraphRecord(Record, frozen=True):
    """One ONNX graph: what it computes, and its file.

    `schedule` is None for all stages but the encoder. `graph_hash` is the canonical hash of
    `ccr_deploy.graphs.canonical_hash`. Of all `convolutions`, `quantized_convolutions` have Q/DQ pairs.
    """

    stage: Stage
    precision: Precision
    schedule: Schedule | None
    graph_hash: str
    convolutions: int
    quantized_convolutions: int
    file: FileRecord


class SampleRecord(Record, frozen=True):
    """One sample image, already preprocessed to the image size, and its class; None if unknown."""

    file: FileRecord
    label: int | None


class BaselineRecord(Record, frozen=True):
    """The conventional chain that the bundle's baseline graph was exported from."""

    model: ModelConfig
    trained_iterations: tuple[int, ...]
    weights: FileRecord

    def __post_init__(self) -> None:
        checked_iterations(self.trained_iterations)


class CalibrationRecord(Record, frozen=True):
    """The calibration table of the bundle's INT8 graphs, and the predicted accuracy of each precision.

    `high_precision` lists the layers that are not quantized. `accuracies` were computed with the graphs on
    the held-out images that `images` describes; empty if there were none.
    """

    table: FileRecord
    high_precision: tuple[str, ...]
    images: str
    accuracies: tuple[PrecisionAccuracy, ...]


class Manifest(Record, frozen=True):
    """The content of ``manifest.json``.

    `trained_iterations` lists every T of the weights' training. `tolerance` is the flip tolerance, None if
    it was not measured.
    """

    schema_version: int
    created_by: str
    model: ModelConfig
    trained_iterations: tuple[int, ...]
    class_names: tuple[str, ...]
    metrics: dict[str, float]
    contract: CodeContract
    contract_id: str
    weights: FileRecord
    graphs: tuple[GraphRecord, ...]
    samples: Annotated[tuple[SampleRecord, ...], Meta(min_length=1)]
    baseline: BaselineRecord | None
    calibration: CalibrationRecord | None
    tolerance: FlipTolerance | None = None

    def __post_init__(self) -> None:
        checked_iterations(self.trained_iterations)
        model, contract = self.model, self.contract
        # The contract repeats what it needs of the model, because payloads depend on its id.
        agreed = (contract.image_height, contract.image_width, contract.iterations, contract.code_channels)
        if agreed != (model.image_height, model.image_width, model.iterations, model.encoder.code_channels):
            raise ValueError("model and contract have different image sizes, iterations or code channels")
        classes = model.classifier.classes
        if self.class_names and len(self.class_names) != classes:
            raise ValueError(f"{len(self.class_names)} class names for {classes} classes")
        for sample in self.samples:
            if sample.label is not None and not 0 <= sample.label < classes:
                raise ValueError(f"a sample has label {sample.label}, but there are {classes} classes")
        contract.preprocessing.check_covers(contract.image_height, contract.image_width)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each network that runs with a T that it was not trained with."""
        lines = (
            untrained_warning(name, network.model.iterations, network.trained_iterations)
            for name, network in (("checkpoint", self), ("baseline", self.baseline))
            if network
        )
        return tuple(filter(None, lines))

    def class_name(self, label: int) -> str:
        """Return the name of a class, or ``class N`` if the checkpoint has no class names."""
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"

    def network(self, stage: Stage) -> Manifest | BaselineRecord:
        """Return the record that describes a stage's network: its model, weights and trained iterations."""
        return self.baseline if stage == "baseline" and self.baseline else self

    def input_shapes(self, stage: Stage) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a stage's inputs by name, without the batch dimension."""
        if stage == "classifier":
            return {"code": (self.contract.code_bytes,)}
        model = self.network(stage).model
        return {"image": (model.image_height, model.image_width, 3)}

    def reference_hash(self, stage: Stage) -> str:
        """Return a SHA-256 that identifies a stage's PyTorch reference: weights, model and preprocessing."""
        network = self.network(stage)
        parts = (network.weights.sha256, network.model, self.contract.preprocessing)
        return hashlib.sha256(canonical_json(parts)).hexdigest()

    def files(self) -> list[FileRecord]:
        """Return the records of all files of the bundle, except the manifest itself."""
        baseline = self.baseline.weights if self.baseline else None
        table = self.calibration.table if self.calibration else None
        graphs, samples = (graph.file for graph in self.graphs), (sample.file for sample in self.samples)
        return [self.weights, *filter(None, (baseline, table)), *graphs, *samples]


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """Parse the text of a manifest; `path` is its file, for messages.

    Raises:
        BundleError: if it is not JSON, has another schema version, a field is missing, unknown or wrong, or
            the contract id is not that of the contract.
    """
    manifest = parse_versioned_json(
        Manifest, text, path, version=SCHEMA_VERSION, error=BundleError, remedy=REMEDY
    )
    stated, found = manifest.contract_id, manifest.contract.contract_id
    if stated != found:
        raise BundleError(f"{path}: field contract_id: expected {found}, found {stated}: {REMEDY}")
    return manifest
