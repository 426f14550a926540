"""The calibration table: activation ranges as text, to be reviewed, committed and used again.

::

    {
      "schema_version": 1,
      "created_by": "ccr-deploy 0.1.0",
      "graph_hashes": {"encoder": "…", "classifier": "…"},    what it belongs to
      "image_count": 256,
      "images_sha256": "…",                                   what it was collected on
      "preprocessing": {…},
      "versions": {"onnxruntime": "1.24.4"},
      "high_precision": ["binarizer"],                        layers that are not quantized
      "stages": {
        "encoder": {
          "tensors": {
            "cell1/t1/hidden_state": {"low": -0.71, "high": 0.74, "method": "entropy"},
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
"""The scale is symmetric, as TensorRT's is: -128 is not used."""


def has_scale(magnitude: float) -> bool:
    """Whether the scale of a largest absolute value is a number, other than 0, in float32."""
    return FLOAT32_TINY <= magnitude / INT8_MAX <= FLOAT32_MAX


class TensorRange(Record, frozen=True):
    """One tensor's range, and how it was found (``minmax``, ``entropy``, ``percentile 99.99``)."""

    low: float
    high: float
    method: str

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if not has_scale(self.magnitude):
            raise ValueError(f"low {self.low:g} and high {self.high:g} have no scale in float32")

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


class StageTable(Record, frozen=True):
    """The ranges of one stage, by logical tensor name; the names fit every schedule of an encoder."""

    tensors: dict[str, TensorRange]

    def magnitudes(self) -> dict[str, dict[int, float]]:
        """Every signal's largest absolute value, by iteration; 1 where it belongs to none."""
        found: dict[str, dict[int, float]] = {}
        for name, entry in self.tensors.items():
            found.setdefault(signal_of(name), {})[iteration_of(name) or 1] = entry.magnitude
        return found

    def scale_of(self, signals: Collection[str]) -> float:
        """The INT8 scale of a tensor that carries these signals: one for all their iterations.

        Raises:
            CalibrationError: no tensor of the table has one of the signals.
        """
        known = self.magnitudes()
        if missing := sorted(set(signals) - known.keys()):
            raise CalibrationError(f"calibration table: no range for {missing[0]}: calibrate again")
        return max(max(known[signal].values()) for signal in signals) / INT8_MAX


class CalibrationTable(Record, frozen=True):
    """Activation ranges of encoder and classifier, and what they belong to.

    `graph_hashes` are the canonical ones of the FP32 graphs that the ranges were collected on, and
    `images_sha256` is over the images' pixels, in order, as the encoder sees them.
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
            raise ValueError("stages and graph_hashes must be of encoder and classifier")

    def to_json(self) -> str:
        """The table as text, sorted by name so that two tables compare line by line."""
        content = to_builtins(self)
        for stage in content["stages"].values():
            stage["tensors"] = dict(sorted(stage["tensors"].items()))
        return to_json(content) + "\n"


def read_table(path: Path) -> CalibrationTable:
    """The table in a file.

    Raises:
        WrongUsageError: there is no such file.
        CalibrationError: it is no table of this version, or has an unknown or wrong field.
    """
    with reading(path, WrongUsageError):
        text = read_bytes(path)
    return parse_table(text, path)


def parse_table(text: bytes, path: Path) -> CalibrationTable:
    """Parse a table; `path` is where it came from, for messages.

    Raises:
        CalibrationError: it is no table of this version, or has an unknown or wrong field.
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
    table: CalibrationTable, stage: ChainStage, model: ir.Model, graph_hash: str, where: Path
) -> None:
    """Checks that a stage's ranges are for this graph: the hash, and every tensor's name.

    Raises:
        CalibrationError: it is another graph's, or a tensor is missing or unknown; the message begins with
            `where` the table came from.
    """
    if table.graph_hashes[stage] != graph_hash:
        raise CalibrationError(
            f"{where}: field graph_hashes.{stage}: {table.graph_hashes[stage][:12]}, the bundle's graph has "
            f"{graph_hash[:12]}: this table is another model's; calibrate again"
        )
    expected, found = set(quantized_activations(model)), set(table.stages[stage].tensors)
    if missing := sorted(expected - found):
        raise CalibrationError(f"{where}: no range for {', '.join(missing[:3])}: calibrate again")
    if unknown := sorted(found - expected):
        raise CalibrationError(
            f"{where}: the graph has no tensor {', '.join(unknown[:3])}: remove it, or calibrate again"
        )


@dataclass(frozen=True)
class Disagreement:
    """One tensor of two tables: its largest absolute value in each; None where a table lacks it."""

    stage: ChainStage
    tensor: str
    first: float | None
    second: float | None

    @property
    def ratio(self) -> float | None:
        """The second's over the first's."""
        return self.second / self.first if self.first and self.second else None


def compare_tables(first: CalibrationTable, second: CalibrationTable) -> list[Disagreement]:
    """Where two tables disagree, the largest disagreement first; tensors that only one has come before."""
    found = []
    for stage in first.stages:
        tensors, others = first.stages[stage].tensors, second.stages[stage].tensors
        for name in sorted(tensors.keys() | others.keys()):
            one, other = tensors.get(name), others.get(name)
            if one != other:
                magnitudes = (entry.magnitude if entry else None for entry in (one, other))
                found.append(Disagreement(stage, name, *magnitudes))
    return sorted(found, key=_distance, reverse=True)


def _distance(entry: Disagreement) -> float:
    return max(entry.ratio, 1 / entry.ratio) if entry.ratio else float("inf")
