"""What running a bundle's engines takes of its manifest, read by the standard library.

The whole manifest, which commands read, is in `ccr_deploy.bundle.reader`; the parts that both need are here.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from ccr_deploy.codec.contract import CodeContract
from ccr_deploy.core.plain_records import Matches, Within, load_versioned_json, read_record
from ccr_deploy.core.precisions import PRECISIONS, Precision
from ccr_deploy.core.stages import Schedule, Stage
from ccr_deploy.core.untrusted import open_regular, read_bytes
from ccr_deploy.errors import BundleError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION: Final = 2
MANIFEST = "manifest.json"
REMEDY = "export the bundle again or use the version of ccr-deploy that made it"


@dataclass(frozen=True)
class FileRecord:
    """One file of the bundle."""

    name: Annotated[str, Matches(r"[a-z0-9][a-z0-9.-]*")]
    sha256: Annotated[str, Matches(r"[0-9a-f]{64}")]
    bytes: Annotated[int, Within(0, sys.maxsize)]


@dataclass(frozen=True)
class GraphRecord:
    """One ONNX graph: what it computes and which file it is.

    Only encoders have a schedule. `graph_hash` is the canonical one of `ccr_deploy.graphs.canonical_hash`.
    `quantized_convolutions` of the `convolutions` have Q/DQ pairs.
    """

    stage: Stage
    precision: Precision
    schedule: Schedule | None
    graph_hash: str
    convolutions: int
    quantized_convolutions: int
    file: FileRecord


@dataclass(frozen=True)
class NetworkFacts:
    """A network that the bundle has weights of; `model` is its configuration as JSON has it."""

    model: dict[str, object]
    trained_iterations: tuple[int, ...]
    weights: FileRecord


@dataclass(frozen=True)
class BundleFacts:
    """A bundle's folder, what its codes mean, and what its engines are built from."""

    path: Path
    model: dict[str, object]
    class_names: tuple[str, ...]
    contract: CodeContract
    contract_id: str
    weights: FileRecord
    graphs: tuple[GraphRecord, ...]
    baseline: NetworkFacts | None

    @classmethod
    def read(cls, path: Path) -> BundleFacts:
        """Reads the manifest in a bundle's folder; of the bundle's other files none is needed.

        Raises:
            WrongUsageError: there is no bundle at `path`.
            BundleError: the manifest is damaged or of another version.
        """
        text, manifest = read_manifest(path), path / MANIFEST
        content = load_versioned_json(
            text, manifest, version=SCHEMA_VERSION, error=BundleError, remedy=REMEDY
        )
        known = {field.name for field in fields(cls)}
        part = {name: value for name, value in content.items() if name in known}
        try:
            facts = read_record(cls, {**part, "path": path})
            facts.contract.preprocessing.check_covers(facts.contract.image_height, facts.contract.image_width)
            classifier = facts.model.get("classifier")
            check_class_names(
                facts.class_names, classifier.get("classes") if isinstance(classifier, dict) else None
            )
        except ValueError as problem:  # a FieldError is one
            raise BundleError(f"{manifest}: {problem}: {REMEDY}") from problem
        check_contract_id(facts.contract, facts.contract_id, manifest)
        return facts

    def class_name(self, label: int) -> str:
        """The class's name, or its number where the checkpoint had no names."""
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"

    def graph(self, stage: Stage, precision: Precision, schedule: Schedule | None) -> GraphRecord:
        """The graph for a stage.

        Raises:
            WrongUsageError: the bundle has none; the message says how to add it.
        """
        for graph in self.graphs:
            if (graph.stage, graph.precision, graph.schedule) == (stage, precision, schedule):
                return graph
        wanted = " ".join(filter(None, (precision, schedule, stage)))
        raise WrongUsageError(
            f"{self.path}: no {wanted} graph in it: {self._how_to_add(stage, precision, schedule)}"
        )

    def reference_hash(self, stage: Stage) -> str:
        """What the PyTorch reference of a stage is made of: weights, configuration and preprocessing."""
        network = self.baseline if stage == "baseline" else None
        model, weights = (network.model, network.weights) if network else (self.model, self.weights)
        configuration = json.dumps(model, sort_keys=True)
        parts = (weights.sha256, configuration, repr(self.contract.preprocessing))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _how_to_add(self, stage: Stage, precision: Precision, schedule: Schedule | None) -> str:
        """What puts a missing graph into the bundle."""
        if stage == "baseline":
            return "export it again with --baseline CHECKPOINT"
        has_fp32 = any(
            graph.stage == stage and graph.precision == "fp32" and graph.schedule == schedule
            for graph in self.graphs
        )
        if not has_fp32:
            return f"export it again with --schedule {schedule}"
        if PRECISIONS[precision].is_calibrated:
            return f"on the workstation, run ccr-deploy calibrate {self.path} --images DIR"
        return "export it again on the workstation, without --no-fp16"


def read_manifest(path: Path) -> bytes:
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


def check_class_names(names: Sequence[str], classes: object) -> None:
    """Raise a ValueError if there are names, but not one for each of the model's classes."""
    if names and len(names) != classes:
        raise ValueError(f"{len(names)} class names for {classes} classes")


def check_contract_id(contract: CodeContract, contract_id: str, manifest: Path) -> None:
    """Raises a BundleError where a manifest's contract id is not that of its contract."""
    if contract_id != contract.contract_id:
        raise BundleError(
            f"{manifest}: field contract_id: {contract_id}, its contract has {contract.contract_id}"
        )


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
