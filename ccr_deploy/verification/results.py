"""What a verification found, as it is written to JSON."""

from __future__ import annotations

from typing import Literal, get_args

from ccr_deploy.bundle.manifest import CalibrationRecord
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record

SCHEMA_VERSION = 2

Level = Literal["graph", "engine"]
"""What is compared with the PyTorch reference: the ONNX graph run node by node, or the built engine."""
LEVELS: tuple[Level, ...] = get_args(Level)

Way = Literal["pytorch", "graph", "engine"]
"""How the chain is run."""
REFERENCE: Literal["pytorch"] = "pytorch"

LogitStage = Literal["classifier", "chain", "baseline"]
"""Whose logits: the classifier reads the reference's codes, a chain those of its own encoder."""


class CodeParity(Record, frozen=True):
    """The encoder's codes against the reference's.

    `unexplained_flips` are the flipped bits whose pre-binarization activation was further from 0
    than `verify.TIE_MARGIN` of that layer's spread: rounding does not reach so far.
    """

    level: Level
    images: int
    bits: int
    flipped_bits: int
    unexplained_flips: int
    equal_payloads: int


class LogitParity(Record, frozen=True):
    """Logits against the reference's."""

    stage: LogitStage
    level: Level
    images: int
    max_difference: float
    min_cosine: float
    same_top1: int


class ChainAccuracy(Record, frozen=True):
    """How often a chain names the label; `top1_interval` is bootstrapped by group of images."""

    chain: Way
    images: int
    groups: int
    top1_percent: float
    top1_interval_percent: Interval
    top5_percent: float


class GateResult(Record, frozen=True):
    """One demand, what was found, and whether it holds."""

    gate: str
    level: Level
    limit: float
    found: float
    passed: bool


class EngineSummary(Record, frozen=True):
    """An engine that was verified."""

    stage: str
    precision: str
    schedule: str | None
    backend: str
    backend_version: str
    device: str
    engine_sha256: str


class SampleAnswer(Record, frozen=True):
    """One image's way through the engines, to be shown to a person.

    `payload_bytes` crossed the wire; a JPEG of quality 75 of the same pixels would have taken
    `jpeg_bytes`.
    """

    name: str
    thumbnail_png_base64: str
    label: str | None
    answer: str
    probability: float
    payload_bytes: int
    jpeg_bytes: int


class VerificationReport(Record, frozen=True):
    """Everything one run of `verify` found; `calibration` is what the bundle says of its precisions.

    `iterations` is the T that was run; `warnings` say what a reader must know first, such as that it is
    none of `trained_iterations`.
    """

    schema_version: int
    created_by: str
    bundle: str
    contract_id: str
    weights_sha256: str
    iterations: int
    trained_iterations: tuple[int, ...]
    warnings: tuple[str, ...]
    target: str
    images: str
    image_count: int
    codes: tuple[CodeParity, ...]
    logits: tuple[LogitParity, ...]
    accuracies: tuple[ChainAccuracy, ...]
    gates: tuple[GateResult, ...]
    engines: tuple[EngineSummary, ...]
    samples: tuple[SampleAnswer, ...]
    calibration: CalibrationRecord | None

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return all(gate.passed for gate in self.gates)
