"""The calibration table: activation ranges as text that can be reviewed, committed and reused.

::

    {
      "schema_version": 1,
      "created_by": "ccr-deploy 0.1.0",
      "graph_hashes": {"encoder": "…", "classifier": "…"},    the graphs that it belongs to
      "image_count": 256,
      "images_sha256": "…",                                   the images that it was collected on
      "preprocessing": {…},
      "versions": {"onnxruntime": "1.24.4"},
      "high_precision": ["binarizer"],                        layers that are not quantized
      "stages": {
        "encoder": {
          "tensors": {
            "cell1/t1/hidden_state": {"low": -0.71, "high": 0.74, "method": "entropy", …},
    …
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from ccr_deploy.codec.contract import FLOAT32_MAX, FLOAT32_TINY, Preprocessing
from ccr_deploy.core.records import Record, parse_versioned_json, to_builtins, to_json
from ccr_deploy.core.stages import CHAIN_STAGES, ChainStage
from ccr_deploy.core.untrusted import read_bytes, reading
from ccr_deploy.errors import CalibrationError, WrongUsageError
from ccr_deploy.models.family import iteration_of, signal_of
from ccr_deploy.quantization.quantizers import quantized_activations

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import onnx_ir as ir

SCHEMA_VERSION = 1
INT8_MAX = 127
"""The largest quantized value. The range is symmetric, as in TensorRT: -128 is not used."""


def has_scale(magnitude: float) -> bool:
    """Return whether the scale of a largest absolute value is a float32 number other than 0."""
    return FLOAT32_TINY <= magnitude / INT8_MAX <= FLOAT32_MAX


class TensorRange(Record, frozen=True):
    """The range of one tensor, and its method: ``minmax``, ``entropy``, ``percentile 99.99``.

    `clipped_percent` is the share of the tensor's values on the calibration images that INT8 clips, beyond
    the scale that all iterations share; None in tables of earlier versions.
    """

    low: float
    high: float
    method: str
    clipped_percent: Annotated[float, Meta(ge=0, le=100)] | None = None

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if not has_scale(self.magnitude):
            raise ValueError(f"low {self.low:g} and high {self.high:g} give no scale in float32")

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


class StageTable(Record, frozen=True):
    """The ranges of one stage by logical tensor name; the names are the same in every schedule."""

    tensors: dict[str, TensorRange]

    def magnitudes(self) -> dict[str, dict[int, float]]:
        """Return each signal's largest absolute value by iteration, with 1 for tensors without iterations."""
        found: dict[str, dict[int, float]] = {}
        for name, entry in self.tensors.items():
            found.setdefault(signal_of(name), {})[iteration_of(name) or 1] = entry.magnitude
        return found

    def scale_of(self, signals: Collection[str]) -> float:
        """Return the INT8 scale of a tensor with these signals: one scale for all iterations.

        Raises:
            CalibrationError: if the table has no range for one of the signals.
        """
        known = self.magnitudes()
        if missing := sorted(set(signals) - known.keys()):
            raise CalibrationError(f"calibration table: no range for {missing[0]}: calibrate again")
        return max(max(known[signal].values()) for signal in signals) / INT8_MAX


class CalibrationTable(Record, frozen=True):
    """Activation ranges of encoder and classifier, with the graphs and images that they belong to.

    `graph_hashes` are the canonical hashes of the FP32 graphs that the ranges were collected on.
    `images_sha256` is the SHA-256 of the pixels of all preprocessed images, in order.
    """

    schema_version: int
    created_by: str
    graph_hashes: dict[ChainStage, str]
    image_count: Annotated[int, Meta(ge=1)]
    images_sha256: str
    preprocessing: Preprocessing
    versions: dict[str, str]
    high_precision: tuple[str, ...]
    stages: dict[ChainStage, StageTable]

    def __post_init__(self) -> None:
        if not set(self.stages) == set(self.graph_hashes) == set(CHAIN_STAGES):
            raise ValueError("stages and graph_hashes must have the keys encoder and classifier")

    def to_json(self) -> str:
        """Return the table as JSON, sorted by tensor so that two tables can be compared line by line."""
        content = to_builtins(self)
        for stage in content["stages"].values():
            stage["tensors"] = dict(sorted(stage["tensors"].items()))
        return to_json(content) + "\n"


def read_table(path: Path) -> CalibrationTable:
    """Read a table from a file.

    Raises:
        WrongUsageError: if there is no such file.
        CalibrationError: if it is not a table of this version, or a field is unknown or wrong.
    """
    with reading(path, WrongUsageError):
        text = read_bytes(path)
    return parse_table(text, path)


def parse_table(text: bytes, path: Path) -> CalibrationTable:
    """Parse the text of a table; `path` is its file, for messages.

    Raises:
        CalibrationError: if it is not a table of this version, or a field is unknown or wrong.
    """
    return parse_versioned_json(
        CalibrationTable,
        text,
        path,
        version=SCHEMA_VERSION,
        error=CalibrationError,
        remedy="correct it, or calibrate again",
    )


def check_stage(
    table: CalibrationTable, stage: ChainStage, model: ir.Model, graph_hash: str, path: Path
) -> None:
    """Check that a stage's ranges are for a graph: its hash, and the names of all quantized tensors.

    Args:
        table: the calibration table.
        stage: the stage of the graph.
        model: the FP32 graph.
        graph_hash: its canonical hash.
        path: the table's file, for messages.

    Raises:
        CalibrationError: if the table is for another graph, or a tensor is missing or unknown.
    """
    if table.graph_hashes[stage] != graph_hash:
        raise CalibrationError(
            f"{path}: field graph_hashes.{stage}: {table.graph_hashes[stage][:12]}, the bundle's graph has "
            f"{graph_hash[:12]}: this table is for another model; calibrate again"
        )
    expected, found = set(quantized_activations(model)), set(table.stages[stage].tensors)
    # Model Optimizer would silently leave out a tensor without a range.
    if missing := sorted(expected - found):
        raise CalibrationError(f"{path}: no range for {', '.join(missing[:3])}: calibrate again")
    if unknown := sorted(found - expected):
        raise CalibrationError(
            f"{path}: the graph has no tensor {', '.join(unknown[:3])}: remove it, or calibrate again"
        )


@dataclass(frozen=True)
class Disagreement:
    """A tensor whose ranges differ in two tables: its largest absolute values, None if a table lacks it."""

    stage: ChainStage
    tensor: str
    first: float | None
    second: float | None

    @property
    def ratio(self) -> float | None:
        """The second value divided by the first; None if a table lacks the tensor."""
        return self.second / self.first if self.first and self.second else None


def compare_tables(first: CalibrationTable, second: CalibrationTable) -> list[Disagreement]:
    """Return the tensors whose ranges differ: first those that one table lacks, then by decreasing ratio."""
    found = []
    for stage in first.stages:
        tensors, others = first.stages[stage].tensors, second.stages[stage].tensors
        for name in sorted(tensors.keys() | others.keys()):
            one, other = tensors.get(name), others.get(name)
            if _range(one) != _range(other):
                magnitudes = (entry.magnitude if entry else None for entry in (one, other))
                found.append(Disagreement(stage, name, *magnitudes))
    return sorted(found, key=_distance, reverse=True)


def _range(entry: TensorRange | None) -> tuple[float, float, str] | None:
    return (entry.low, entry.high, entry.method) if entry else None


def _distance(entry: Disagreement) -> float:
    return max(entry.ratio, 1 / entry.ratio) if entry.ratio else float("inf")
