"""The results of a verification, as they are written to JSON."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta

from ccr_deploy.bundle.manifest import CalibrationRecord
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record

SCHEMA_VERSION = 3

Level = Literal["graph", "engine"]
"""The ONNX graph run node by node, or the built engine; each is compared with PyTorch."""
LEVELS: tuple[Level, ...] = get_args(Level)

Way = Literal["pytorch", "graph", "engine"]
"""The ways to run the chain."""
REFERENCE: Literal["pytorch"] = "pytorch"

LogitStage = Literal["classifier", "chain", "baseline"]
"""Source of logits: "classifier" reads the reference's codes, "chain" the codes of its own encoder."""


class CodeParity(Record, frozen=True):
    """Parity of the encoder's codes with the reference's.

    `unexplained_flips` counts flipped bits that rounding does not explain: their pre-binarization
    activation is further from 0 than `verify.TIE_MARGIN` times the standard deviation of the activations.
    """

    level: Level
    images: int
    bits: int
    flipped_bits: int
    unexplained_flips: int
    equal_payloads: int


class LogitParity(Record, frozen=True):
    """Parity of logits with the reference's; `min_cosine` is that of the worst image."""

    stage: LogitStage
    level: Level
    images: int
    max_difference: float
    min_cosine: float
    same_top1: int


class ChainAccuracy(Record, frozen=True):
    """Accuracy of a chain; the 95 % interval is bootstrapped over groups of images."""

    chain: Way
    images: int
    groups: int
    top1_percent: float
    top1_interval_percent: Interval
    top5_percent: float


class GateResult(Record, frozen=True):
    """A gate with its limit, the measured value, and whether the gate passed."""

    gate: str
    level: Level
    limit: float
    found: float
    passed: bool


class EngineSummary(Record, frozen=True):
    """A verified engine."""

    stage: str
    precision: str
    schedule: str | None
    backend: str
    backend_version: str
    device: str
    engine_sha256: str


class SampleAnswer(Record, frozen=True):
    """The engines' classification of one image, for the report.

    `jpeg_bytes` is the size of the same pixels as a JPEG of quality 75, to compare `payload_bytes` with.
    """

    name: str
    thumbnail_png_base64: str
    label: str | None
    answer: str
    probability: float
    payload_bytes: int
    jpeg_bytes: int


class GoldenAnswer(Record, frozen=True):
    """What the engines answered for one image of a golden file; `top1` is the index of the class."""

    image: str
    payload_sha256: str
    top1: int
    probability: float


class GoldenAnswers(Record, frozen=True):
    """What the engines answered for a golden file, which is identified by its SHA-256."""

    sha256: str
    answers: Annotated[tuple[GoldenAnswer, ...], Meta(min_length=1)]


class VerificationReport(Record, frozen=True):
    """All results of one run of `verify`.

    `iterations` is the T of the bundle. `warnings` are those of the bundle, for example that T is not among
    the `trained_iterations`. `calibration` is the bundle's record of accuracy per precision. `golden` is
    set if the engines were compared with a golden file.
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
    golden: GoldenAnswers | None = None

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)
