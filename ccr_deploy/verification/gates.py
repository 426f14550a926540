"""Gates: the limits that graphs and engines must meet. Help, reports and documents are made from the rows.

An FP32 engine adds the same numbers as the checkpoint in another order. So a bit flips only if rounding can
change the sign of its pre-binarization activation, and logits differ only in their last digits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision, lowest_precision
from ccr_deploy.core.suggestions import choose_from
from ccr_deploy.errors import GoldenError, WrongUsageError
from ccr_deploy.verification.flip_limits import ModelLimit, flip_limit
from ccr_deploy.verification.results import REFERENCE, GateResult

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.verification.results import ChainAccuracy, CodeParity, Level, LogitParity, NonFinite

    Limit: TypeAlias = float | Callable[[Bundle], ModelLimit]
    """A number, or a function that returns the number for a bundle."""

NO_LIMIT = "-"

MAX_TOP1_LOSS_POINTS: Mapping[EnginePrecision, float] = {"fp32": 0.5, "fp16": 0.3, "bf16": 1, "int8": 1}
"""The loss of accuracy that an engine may cause; the limits of flipped bits are derived from it."""

_Measured = TypeVar("_Measured")


class AccuracyPair(NamedTuple):
    """The accuracies of the reference and of another chain on the same images."""

    reference: ChainAccuracy
    found: ChainAccuracy


@dataclass(frozen=True)
class Gate(Generic[_Measured]):
    """A limit on a measured value of a graph or an engine.

    `name` is its name on the command line, `label` its name in reports, `help` a description,
    `protects_from` what goes unnoticed without it. `measure`
    returns the value to compare, or None if the gate does not apply. `limits` are by precision; the gate
    does not exist for precisions without a limit.
    """

    name: str
    label: str
    help: str
    protects_from: str
    measure: Callable[[_Measured], float | None]
    direction: Literal["at most", "at least"]
    limits: Mapping[EnginePrecision, Limit]

    def holds(self, found: float, limit: float) -> bool:
        """Return whether a value is within a limit; NaN never is."""
        return found <= limit if self.direction == "at most" else found >= limit

    def limit_text(self, precision: EnginePrecision) -> str:
        """Return the limit for engines of a precision as text."""
        limit = self.limits.get(PRECISIONS[precision].gates)
        return NO_LIMIT if limit is None else "by model" if callable(limit) else f"{limit:g}"


CODE_GATES: tuple[Gate[CodeParity], ...] = (
    Gate(
        name="max-unexplained-flips",
        label="unexplained flips",
        help="bits that rounding does not explain",
        protects_from="a changed weight, bit order or normalisation",
        measure=lambda parity: parity.unexplained_flips,
        direction="at most",
        limits={"fp32": 0},
    ),
    Gate(
        name="max-flipped-percent",
        label="flipped bits (%)",
        help="bits that differ",
        protects_from="codes that the classifier was not trained on",
        measure=lambda parity: parity.flipped_percent,
        direction="at most",
        limits={
            "fp32": 0.1,
            "fp16": flip_limit("near zero", MAX_TOP1_LOSS_POINTS["fp16"], fixed=0.2),
            "bf16": flip_limit("near zero", MAX_TOP1_LOSS_POINTS["bf16"], fixed=2),
            "int8": flip_limit("near zero", MAX_TOP1_LOSS_POINTS["int8"], fixed=2),
        },
    ),
    Gate(
        name="max-far-flipped-percent",
        label="flipped bits far from 0 (%)",
        help="flips that no rounding explains",
        protects_from="a fault that few flips, or flips that cost little, would hide",
        measure=lambda parity: parity.far_flipped_percent,
        direction="at most",
        limits={
            "fp32": 0,
            # Far above correct engines, which flip hardly any such bit. The random curve alone would allow
            # more than a dead channel flips.
            "fp16": flip_limit("random", MAX_TOP1_LOSS_POINTS["fp16"], fixed=0.01, is_largest=True),
            "bf16": flip_limit("random", MAX_TOP1_LOSS_POINTS["bf16"], fixed=0.1, is_largest=True),
            "int8": flip_limit("random", MAX_TOP1_LOSS_POINTS["int8"], fixed=0.1, is_largest=True),
        },
    ),
)
"""Gates on the encoder's codes."""

LOGIT_GATES: tuple[Gate[LogitParity], ...] = (
    Gate(
        name="min-cosine",
        label="cosine",
        help="logits of the worst image",
        protects_from="another classifier, or a layer that computes something else",
        # A flipped bit may change a chain's logits without changing its top-1 class, which counts.
        measure=lambda parity: None if parity.stage == "chain" else parity.min_cosine,
        direction="at least",
        limits={"fp32": 0.9999, "fp16": 0.999, "bf16": 0.995, "int8": 0.98},
    ),
    Gate(
        name="min-same-top1-percent",
        label="same top-1 (%)",
        help="classes equal to PyTorch's",
        protects_from="changed answers, if images have no labels",
        measure=lambda parity: 100 * parity.same_top1 / parity.images,
        direction="at least",
        limits={"fp32": 99, "fp16": 99, "bf16": 95, "int8": 95},
    ),
)
"""Gates on the logits of classifier, chain and baseline."""

ACCURACY_GATES: tuple[Gate[AccuracyPair], ...] = (
    Gate(
        name="max-top1-loss-points",
        label="top-1 loss (points)",
        help="accuracy, if images are labelled",
        protects_from="lost accuracy",
        measure=lambda pair: pair.reference.top1_percent - pair.found.top1_percent,
        direction="at most",
        limits=MAX_TOP1_LOSS_POINTS,
    ),
)
"""Gates on the accuracy of the chain."""

VALUE_GATES: tuple[Gate[Sequence[NonFinite]], ...] = (
    Gate(
        name="max-nan-values",
        label="NaN or infinity",
        help="activations and logits",
        protects_from="overflow in FP16, and damaged weights",
        measure=lambda found: sum(entry.values for entry in found),
        direction="at most",
        limits={"fp32": 0, "fp16": 0, "bf16": 0, "int8": 0},
    ),
)
"""Gates on the values that a way computed."""

GATES: tuple[Gate[Any], ...] = (*CODE_GATES, *LOGIT_GATES, *ACCURACY_GATES, *VALUE_GATES)


@dataclass(frozen=True)
class GateLimits:
    """The limits of one verification, by the names of the gates; gates without a limit are not checked.

    `reasons` say where those limits come from that are not the same for every model.
    """

    by_name: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, precisions: Collection[EnginePrecision], bundle: Bundle) -> GateLimits:
        """Return the limits for a chain of engines: those of the lowest precision among them.

        Args:
            precisions: precisions of the engines.
            bundle: bundle that the engines were built from.
        """
        column = lowest_precision(precisions).gates
        limits = {gate.name: gate.limits[column] for gate in GATES if column in gate.limits}
        by_model = {name: limit(bundle) for name, limit in limits.items() if callable(limit)}
        fixed = {name: limit for name, limit in limits.items() if not callable(limit)}
        numbers = {**fixed, **{name: limit.value for name, limit in by_model.items()}}
        return cls(numbers, {name: limit.reason for name, limit in by_model.items()})

    @classmethod
    def recorded(
        cls,
        limits: Mapping[EnginePrecision, Mapping[str, float]],
        precisions: Iterable[EnginePrecision],
        path: Path,
    ) -> GateLimits:
        """Return the limits that a golden file records for a chain of engines.

        Args:
            limits: limits by precision and name of gate. Gates that this version does not have are ignored.
            precisions: precisions of the engines.
            path: the golden file, for the message.

        Raises:
            GoldenError: if the golden file has no limits for the lowest precision among them.
        """
        row = lowest_precision(list(precisions))
        names = {gate.name for gate in GATES}
        known = {name: limit for name, limit in limits.get(row.name, {}).items() if name in names}
        if not known:  # a verification without gates would pass
            raise GoldenError(
                f"{path}: no gate limits for {row.label} engines: write it again with "
                "ccr-deploy verify BUNDLE --export-golden FILE"
            )
        by_model = {gate.name for gate in GATES if callable(gate.limits.get(row.gates))}
        return cls(known, {name: "golden file" for name in known if name in by_model})

    def changed(self, changes: Iterable[str]) -> GateLimits:
        """Return the limits after changes, each ``name=value``; names may have underscores for dashes.

        Raises:
            WrongUsageError: if a gate does not exist, or a value is not a number.
        """
        known = [gate.name for gate in GATES]
        limits, reasons = dict(self.by_name), dict(self.reasons)
        for change in changes:
            typed, _, value = change.partition("=")
            name = typed.replace("_", "-")
            if name not in known:
                raise WrongUsageError(f"unknown gate {typed!r}: {choose_from(name, known)}")
            try:
                limits[name] = float(value)
            except ValueError:
                raise WrongUsageError(
                    f"gate {typed}: {value!r} is not a number: use --gate {typed}=NUMBER"
                ) from None
            reasons[name] = "--gate"
        return GateLimits(limits, reasons)


def check_gates(
    limits: Mapping[Level, GateLimits],
    codes: Iterable[CodeParity],
    logits: Iterable[LogitParity],
    accuracies: Iterable[ChainAccuracy],
    non_finite: Sequence[NonFinite],
) -> tuple[GateResult, ...]:
    """Check every gate on each way, compared with the reference.

    Args:
        limits: limits of the gates for each way.
        codes: parity of the codes.
        logits: parity of the logits, for each stage.
        accuracies: accuracies of the reference and of each way; none if no image has a label.
        non_finite: outputs that hold NaN or infinity, of the reference too.
    """
    results: list[GateResult] = []
    for code in codes:
        if code.against == REFERENCE:
            results += _results(CODE_GATES, limits[code.level], code.level, code)
    for logit in logits:
        if logit.against == REFERENCE:
            results += _results(LOGIT_GATES, limits[logit.level], logit.level, logit, f"{logit.stage} ")
    chains = {accuracy.chain: accuracy for accuracy in accuracies}
    for level, own in limits.items():
        if level in chains:
            pair = AccuracyPair(chains[REFERENCE], chains[level])
            results += _results(ACCURACY_GATES, own, level, pair)
        # What the reference computed itself is the fault of no other way, but nothing can be verified by it.
        found = [entry for entry in non_finite if entry.way in {level, REFERENCE}]
        results += _results(VALUE_GATES, own, level, found)
    return tuple(results)


def _results(
    gates: Sequence[Gate[_Measured]], limits: GateLimits, level: Level, measured: _Measured, about: str = ""
) -> Iterator[GateResult]:
    for gate in gates:
        limit, found = limits.by_name.get(gate.name), gate.measure(measured)
        if limit is not None and found is not None:
            yield GateResult(
                name=gate.name,
                gate=f"{about}{gate.label}",
                level=level,
                direction=gate.direction,
                protects_from=gate.protects_from,
                limit=limit,
                found=found,
                passed=gate.holds(found, limit),
                limit_reason=limits.reasons.get(gate.name, ""),
            )
