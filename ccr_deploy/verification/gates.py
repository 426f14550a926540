"""The demands that an engine must meet. Each limit can be changed by its name."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import inf
from typing import TYPE_CHECKING

from ccr_deploy.errors import WrongUsageError
from ccr_deploy.verification.results import GateResult

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.verification.results import ChainAccuracy, CodeParity, Level, LogitParity


@dataclass(frozen=True)
class Gates:
    """Limits for FP32 engines; `Gates.of` gives those of lower precisions.

    An FP32 engine computes what the checkpoint does in another order of summation, so that a bit flips
    only where the value before the sign is within rounding of 0, and logits differ in the last digits.
    """

    max_unexplained_flips: float = 0
    """Flipped bits that FP32's rounding does not explain; for FP32 engines alone."""
    max_flipped_percent: float = 0.1
    """Flipped bits, in percent of all."""
    min_cosine: float = 0.9999
    """The smallest cosine between an image's logits and the reference's (not the chain's)."""
    min_same_top1_percent: float = 99.0
    """Images for which classifier, chain and baseline answer as the reference does."""
    max_top1_loss_points: float = 0.5
    """Top-1 accuracy lost against the reference, in percentage points (labelled images only)."""

    @classmethod
    def of(cls, precisions: Collection[EnginePrecision]) -> Gates:
        """The limits for a chain's engines: those of the coarsest precision among them."""
        return _GATES[max(precisions, key=list(_GATES).index)]

    def changed(self, changes: Iterable[str]) -> Gates:
        """The gates with limits changed by ``name=value``, dashes for underscores.

        Raises:
            WrongUsageError: there is no such gate, or the value is no number.
        """
        gates = self
        names = [field.name for field in fields(Gates)]
        for change in changes:
            name, _, value = change.partition("=")
            field = name.replace("-", "_")
            if field not in names:
                known = ", ".join(name.replace("_", "-") for name in names)
                raise WrongUsageError(f"there is no gate {name!r}: choose one of {known}")
            try:
                gates = replace(gates, **{field: float(value)})
            except ValueError:
                raise WrongUsageError(
                    f"gate {name}: {value!r} is no number; write --gate {name}=NUMBER"
                ) from None
        return gates


_INT8 = Gates(
    max_unexplained_flips=inf,
    max_flipped_percent=2,
    min_cosine=0.98,
    min_same_top1_percent=95,
    max_top1_loss_points=1,
)
_GATES: dict[EnginePrecision, Gates] = {
    "fp32": Gates(),
    "fp16": Gates(
        max_unexplained_flips=inf, max_flipped_percent=0.2, min_cosine=0.999, max_top1_loss_points=0.3
    ),
    "bf16": replace(_INT8, min_cosine=0.995),
    "int8": _INT8,
}
"""From the finest to the coarsest."""


def check_gates(
    gates: Gates,
    codes: Iterable[CodeParity],
    logits: Iterable[LogitParity],
    accuracies: Iterable[ChainAccuracy],
) -> tuple[GateResult, ...]:
    """Every gate's result for graph and engine."""
    return (
        *(result for parity in codes for result in _judge_code(gates, parity)),
        *(result for parity in logits for result in _judge_logits(gates, parity)),
        *_judge_accuracies(gates, {accuracy.chain: accuracy for accuracy in accuracies}),
    )


def _judge_code(gates: Gates, parity: CodeParity) -> Iterator[GateResult]:
    flipped_percent = 100 * parity.flipped_bits / parity.bits
    if gates.max_unexplained_flips < inf:
        yield _at_most(
            "unexplained flips", parity.level, gates.max_unexplained_flips, parity.unexplained_flips
        )
    yield _at_most("flipped bits (%)", parity.level, gates.max_flipped_percent, flipped_percent)


def _judge_logits(gates: Gates, parity: LogitParity) -> Iterator[GateResult]:
    same_percent = 100 * parity.same_top1 / parity.images
    if parity.stage != "chain":  # a flipped bit may move a chain's logits; its answer is what counts
        yield _at_least(f"{parity.stage} cosine", parity.level, gates.min_cosine, parity.min_cosine)
    yield _at_least(f"{parity.stage} same top-1 (%)", parity.level, gates.min_same_top1_percent, same_percent)


def _judge_accuracies(gates: Gates, accuracies: dict[str, ChainAccuracy]) -> Iterator[GateResult]:
    levels: tuple[Level, ...] = ("graph", "engine")
    for level in levels:
        if level in accuracies:
            loss = accuracies["pytorch"].top1_percent - accuracies[level].top1_percent
            yield _at_most("top-1 loss (points)", level, gates.max_top1_loss_points, loss)


def _at_most(gate: str, level: Level, limit: float, found: float) -> GateResult:
    return GateResult(gate, level, limit, found, passed=found <= limit)


def _at_least(gate: str, level: Level, limit: float, found: float) -> GateResult:
    # Written so that NaN fails.
    return GateResult(gate, level, limit, found, passed=found >= limit)
