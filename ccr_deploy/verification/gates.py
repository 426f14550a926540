"""The demands that an engine must meet, a row each: help, README, reports and results are made from the rows.

An FP32 engine computes what the checkpoint does in another order of summation, so that a bit flips only if
its pre-binarization activation is within rounding of 0, and logits differ in the last digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision, coarsest
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.verification.results import ChainAccuracy, CodeParity, GateResult, Level, LogitParity

    Limit: TypeAlias = float | Callable[[Bundle], float]
    """A number, or what makes one of the bundle that is verified."""

NO_LIMIT = "-"

_Measured = TypeVar("_Measured")


class AccuracyPair(NamedTuple):
    """A chain's accuracy beside the reference's, on the same images."""

    reference: ChainAccuracy
    found: ChainAccuracy


@dataclass(frozen=True)
class Gate(Generic[_Measured]):
    """One demand on what was measured of a graph and of an engine.

    It is typed as `name` on the command line and called `label` in reports; `help` says what it is about.
    `measure` takes a number from what was measured, or None if the gate is not for that. `limits` are by
    precision; a precision without one does not have the gate.
    """

    name: str
    label: str
    help: str
    measure: Callable[[_Measured], float | None]
    direction: Literal["at most", "at least"]
    limits: Mapping[EnginePrecision, Limit]

    def holds(self, found: float, limit: float) -> bool:
        """Whether a number is within a limit; NaN is within none."""
        return found <= limit if self.direction == "at most" else found >= limit

    def limit_text(self, precision: EnginePrecision) -> str:
        """The limit for engines of a precision, for people."""
        limit = self.limits.get(PRECISIONS[precision].gates)
        return NO_LIMIT if limit is None else "the model's" if callable(limit) else f"{limit:g}"


CODE_GATES: tuple[Gate[CodeParity], ...] = (
    Gate(
        name="max-unexplained-flips",
        label="unexplained flips",
        help="bits that rounding does not explain",
        measure=lambda parity: parity.unexplained_flips,
        direction="at most",
        limits={"fp32": 0},
    ),
    Gate(
        name="max-flipped-percent",
        label="flipped bits (%)",
        help="bits that differ",
        measure=lambda parity: 100 * parity.flipped_bits / parity.bits,
        direction="at most",
        limits={"fp32": 0.1, "fp16": 0.2, "bf16": 2, "int8": 2},
    ),
)
"""Of the encoder's codes against the reference's."""

LOGIT_GATES: tuple[Gate[LogitParity], ...] = (
    Gate(
        name="min-cosine",
        label="cosine",
        help="logits of the worst image",
        # A flipped bit may move a chain's logits: its answer is what counts.
        measure=lambda parity: None if parity.stage == "chain" else parity.min_cosine,
        direction="at least",
        limits={"fp32": 0.9999, "fp16": 0.999, "bf16": 0.995, "int8": 0.98},
    ),
    Gate(
        name="min-same-top1-percent",
        label="same top-1 (%)",
        help="classes equal to PyTorch's",
        measure=lambda parity: 100 * parity.same_top1 / parity.images,
        direction="at least",
        limits={"fp32": 99, "fp16": 99, "bf16": 95, "int8": 95},
    ),
)
"""Of the logits of classifier, chain and baseline against the reference's."""

ACCURACY_GATES: tuple[Gate[AccuracyPair], ...] = (
    Gate(
        name="max-top1-loss-points",
        label="top-1 loss (points)",
        help="accuracy, if images are labelled",
        measure=lambda pair: pair.reference.top1_percent - pair.found.top1_percent,
        direction="at most",
        limits={"fp32": 0.5, "fp16": 0.3, "bf16": 1, "int8": 1},
    ),
)
"""Of the whole chain's accuracy, in percentage points."""

GATES: tuple[Gate[Any], ...] = (*CODE_GATES, *LOGIT_GATES, *ACCURACY_GATES)


@dataclass(frozen=True)
class GateLimits:
    """The limits of one verification, by the gates' names; a gate without one is left out."""

    by_name: Mapping[str, float]

    @classmethod
    def of(cls, precisions: Collection[EnginePrecision], bundle: Bundle) -> GateLimits:
        """The limits for a chain's engines: those of the coarsest precision among them.

        Args:
            precisions: the engines'.
            bundle: which they are built from.
        """
        column = coarsest(precisions).gates
        limits = {gate.name: gate.limits[column] for gate in GATES if column in gate.limits}
        return cls({name: limit(bundle) if callable(limit) else limit for name, limit in limits.items()})

    def changed(self, changes: Iterable[str]) -> GateLimits:
        """The limits with some changed by ``name=value``; underscores do for dashes.

        Raises:
            WrongUsageError: there is no such gate, or the value is no number.
        """
        known = [gate.name for gate in GATES]
        limits = dict(self.by_name)
        for change in changes:
            name, _, value = change.partition("=")
            if name.replace("_", "-") not in known:
                raise WrongUsageError(f"there is no gate {name!r}: choose one of {', '.join(known)}")
            try:
                limits[name.replace("_", "-")] = float(value)
            except ValueError:
                raise WrongUsageError(
                    f"gate {name}: {value!r} is no number; write --gate {name}=NUMBER"
                ) from None
        return GateLimits(limits)


def check_gates(
    limits: GateLimits,
    codes: Iterable[CodeParity],
    logits: Iterable[LogitParity],
    accuracies: Iterable[ChainAccuracy],
) -> tuple[GateResult, ...]:
    """Check every gate on graph and engine.

    Args:
        limits: of the gates to check.
        codes: graph's and engine's against the reference's.
        logits: likewise, of each stage.
        accuracies: the reference's, the graph's and the engine's; none if no image is labelled.
    """
    results: list[GateResult] = []
    for code in codes:
        results += _results(CODE_GATES, limits, code.level, code)
    for logit in logits:
        results += _results(LOGIT_GATES, limits, logit.level, logit, f"{logit.stage} ")
    chains = {accuracy.chain: accuracy for accuracy in accuracies}
    for chain, accuracy in chains.items():
        if chain != "pytorch":
            pair = AccuracyPair(chains["pytorch"], accuracy)
            results += _results(ACCURACY_GATES, limits, chain, pair)
    return tuple(results)


def _results(
    gates: Sequence[Gate[_Measured]], limits: GateLimits, level: Level, measured: _Measured, about: str = ""
) -> Iterator[GateResult]:
    # Here, so that the commands' help has the rows at once.
    from ccr_deploy.verification.results import GateResult

    for gate in gates:
        limit, found = limits.by_name.get(gate.name), gate.measure(measured)
        if limit is not None and found is not None:
            yield GateResult(f"{about}{gate.label}", level, limit, found, passed=gate.holds(found, limit))
