"""The results of a verification, as they are written to JSON."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta

from ccr_deploy.bundle.manifest import CalibrationRecord
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record

SCHEMA_VERSION = 4

Way = Literal["pytorch", "fp32-graph", "graph", "engine"]
"""A way to run the chain, in the order in which they are made from each other.

"pytorch" is the checkpoint, or a golden file; "fp32-graph" and "graph" are ONNX graphs run node by node:
those in FP32, and those in the engines' precisions.
"""
REFERENCE: Literal["pytorch"] = "pytorch"

Level = Literal["fp32-graph", "graph", "engine"]
"""A way that is compared. There is no "fp32-graph" if all engines are FP32: it would be the "graph"."""
LEVELS: tuple[Level, ...] = get_args(Level)

LogitStage = Literal["classifier", "chain", "baseline"]
"""Source of logits: "classifier" reads the reference's codes, "chain" the codes of its own encoder."""

Output = Literal["activations", "classifier", "chain", "baseline"]
"""What may hold NaN or infinity: the reference's pre-binarization activations, or logits."""

FlipKind = Literal["none", "rounding", "not rounding"]


class MarginCount(Record, frozen=True):
    """One bar of the histogram of margins: bits with a margin from `low` up to the next bar's."""

    low: float
    bits: int
    flipped_bits: int


class CodeParity(Record, frozen=True):
    """Parity of the encoder's codes with those of another way.

    A bit's margin is its pre-binarization activation in the reference over the standard deviation of its
    image's activations. `unexplained_flips` counts flipped bits whose margin is further from 0 than
    `measures.TIE_MARGIN`: even FP32 rounding does not explain them. `channel_flips` and `channel_ones` count
    the flips, and the ones of `level`, in each channel of the code. `median_margin` is that of all bits,
    `median_flipped_margin` that of the flipped bits, in absolute value, both from the histogram `margins`;
    None without such bits.
    """

    level: Level
    against: Way
    images: int
    bits: int
    flipped_bits: int
    unexplained_flips: int
    equal_payloads: int
    channel_flips: tuple[int, ...]
    channel_ones: tuple[int, ...]
    margins: tuple[MarginCount, ...]
    median_margin: float | None
    median_flipped_margin: float | None

    @property
    def flipped_percent(self) -> float:
        """The share of flipped bits, in percent."""
        return 100 * self.flipped_bits / self.bits

    @property
    def flip_kind(self) -> FlipKind:
        """Whether the flips look like rounding: their margins are small beside those of all bits.

        Rounding flips bits near 0; a fault in the computation flips bits wherever they are, so that the
        median margin of the flipped bits is near that of all bits.
        """
        if not self.flipped_bits:
            return "none"
        if self.median_flipped_margin is None or self.median_margin is None:
            return "not rounding"
        is_near = self.median_flipped_margin <= ROUNDING_MARGIN * self.median_margin
        return "rounding" if is_near else "not rounding"


ROUNDING_MARGIN = 0.25
"""Flips are called rounding if their median margin is at most this share of the median of all bits."""


class LogitParity(Record, frozen=True):
    """Parity of logits with those of another way.

    `mean_difference` is the mean over all logits of all images. `min_cosine` and `max_kl_divergence` are
    those of the worst image, `mean_kl_divergence` is the mean over images; the divergence is that of the
    classes' probabilities from those of `against`, in nats. `same_top5_percent` is the share of the five most
    probable classes of `against` that are among the five of `level`.
    """

    stage: LogitStage
    level: Level
    against: Way
    images: int
    max_difference: float
    mean_difference: float
    min_cosine: float
    mean_kl_divergence: float
    max_kl_divergence: float
    same_top1: int
    same_top5_percent: float


class ChainAccuracy(Record, frozen=True):
    """Accuracy of a chain; the 95 % intervals are bootstrapped over groups of images."""

    chain: Way
    images: int
    groups: int
    top1_percent: float
    top1_interval_percent: Interval
    top5_percent: float
    top5_interval_percent: Interval


class AccuracyChange(Record, frozen=True):
    """Labelled images whose answer is right in one way only.

    `lost` are right in the reference alone, `gained` in `level` alone. `p_value` is that of McNemar's exact
    test that both are equally probable. `top1_loss_interval_points` is the 95 % interval of the loss of
    accuracy, bootstrapped over groups of images.
    """

    level: Level
    images: int
    lost: int
    gained: int
    p_value: float
    top1_loss_points: float
    top1_loss_interval_points: Interval


class MatrixCell(Record, frozen=True):
    """An encoder precision together with a classifier precision, run by their graphs.

    `same_top1` counts the images with the reference's class. The accuracy and its loss against the reference,
    with a 95 % interval bootstrapped over groups, are None if no image has a label.
    """

    encoder: EnginePrecision
    classifier: EnginePrecision
    images: int
    same_top1: int
    top1_percent: float | None
    top1_loss_points: float | None
    top1_loss_interval_points: Interval | None


class NonFinite(Record, frozen=True):
    """NaN or infinity in one output of one way; `first_image` is the first image that has one."""

    way: Way
    output: Output
    values: int
    images: int
    first_image: str


class GateResult(Record, frozen=True):
    """A gate with its limit, the measured value, and whether the gate passed.

    `name` is the gate's name on the command line; `gate` is its label, with the stage before it if it was
    checked for several stages.
    """

    name: str
    gate: str
    level: Level
    direction: Literal["at most", "at least"]
    protects_from: str
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


class ChangedAnswer(Record, frozen=True):
    """An image that the engines classify differently from the reference.

    `label`, `reference` and `answer` are names of classes; `label` is None if the image has none, `answer`
    if the engines returned NaN or infinity. `flipped_bits` are those of its code.
    """

    name: str
    thumbnail_png_base64: str
    label: str | None
    reference: str | None
    reference_probability: float
    answer: str | None
    probability: float
    flipped_bits: int


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
    set if the engines were compared with a golden file. `images_sha256` is the digest of the decoded images
    in their order. `changed_answers` are the first `changes.SHOWN_CHANGES` images whose class differs between
    engine and reference. `matrix` has every encoder precision with every classifier precision, if it was
    requested.
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
    images_sha256: str
    image_count: int
    codes: tuple[CodeParity, ...]
    logits: tuple[LogitParity, ...]
    accuracies: tuple[ChainAccuracy, ...]
    accuracy_changes: tuple[AccuracyChange, ...]
    non_finite: tuple[NonFinite, ...]
    gates: tuple[GateResult, ...]
    engines: tuple[EngineSummary, ...]
    samples: tuple[SampleAnswer, ...]
    changed_answers: tuple[ChangedAnswer, ...]
    calibration: CalibrationRecord | None
    golden: GoldenAnswers | None = None
    matrix: tuple[MatrixCell, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)
