"""The verdict of `build-engine` on a lower precision: is it worth its cost? It is stored in the sidecar."""

from __future__ import annotations

from msgspec.structs import replace

from ccr_deploy.bundle.accuracy import PrecisionAccuracy
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError


class CandidateTiming(Record, frozen=True):
    """The latency of an engine at batch 1 on this machine, and its speed-up over the first candidate.

    The speed-up is None if the timing was unreliable.
    """

    latency_ms_p50: float
    speedup: float | None
    speedup_interval: Interval | None


class PrecisionCandidate(Record, frozen=True):
    """One precision of a stage's engine: its timing and its accuracy.

    `timing` is None if the engine cannot run on the machine that built it. `accuracy` is the bundle's record
    of the whole chain in this precision; None if the bundle has none.
    """

    precision: EnginePrecision
    timing: CandidateTiming | None
    accuracy: PrecisionAccuracy | None

    @property
    def is_faster(self) -> bool:
        """Whether it is faster than the first candidate: the whole interval of its speed-up is above 1."""
        interval = self.timing.speedup_interval if self.timing else None
        return interval is not None and interval.low > 1

    @property
    def cost_points(self) -> float | None:
        """The loss of top-1 accuracy in percentage points; None if it is not known.

        Without labels it is the percentage of changed top-1 classes, which is an upper bound of the loss.
        """
        if self.accuracy is None:
            return 0.0 if self.precision == "fp32" else None
        if self.accuracy.top1_loss_points is not None:
            return self.accuracy.top1_loss_points
        return 100 - self.accuracy.same_top1_percent


class RefusedPrecision(Record, frozen=True):
    """A precision whose engine could not be built, and the reason."""

    precision: EnginePrecision
    reason: str


class Verdict(Record, frozen=True):
    """The comparison of an engine with the other precisions that were built and timed with it.

    `unreliable_reasons` lists what disturbed the timing; it is empty if the timing was reliable.
    """

    precision: EnginePrecision
    accuracy_budget_points: float
    high_precision: tuple[str, ...]
    candidates: tuple[PrecisionCandidate, ...]
    refused: tuple[RefusedPrecision, ...] = ()
    unreliable_reasons: tuple[str, ...] = ()

    @property
    def candidate(self) -> PrecisionCandidate:
        """The engine's own numbers."""
        return next(entry for entry in self.candidates if entry.precision == self.precision)

    @property
    def is_within_budget(self) -> bool | None:
        """Whether its accuracy loss is within the budget; None if its loss is not known."""
        return is_within(self.candidate, self.accuracy_budget_points)


def is_within(candidate: PrecisionCandidate, budget_points: float) -> bool | None:
    """Return whether a candidate's cost is within a budget; None if its cost is not known."""
    return None if candidate.cost_points is None else candidate.cost_points <= budget_points


def fastest_within_budget(
    candidates: tuple[PrecisionCandidate, ...], budget_points: float
) -> PrecisionCandidate:
    """Choose the fastest candidate whose loss is known to be within the budget.

    FP32 is within every budget. A candidate counts as faster than the first one only if the whole interval of
    its speed-up is above 1.

    Args:
        candidates: at least one candidate; the first is the baseline of the others' speed-up.
        budget_points: the largest loss of top-1 accuracy, in percentage points.

    Raises:
        EngineError: if no candidate is within the budget.
    """
    within = [entry for entry in candidates if entry.precision == "fp32" or is_within(entry, budget_points)]
    if not within:
        names = " and ".join(entry.precision.upper() for entry in candidates)
        raise EngineError(
            f"{names} cost more than the accuracy budget of {budget_points:g} points, and no FP32 engine can "
            "be built on this machine: give a larger --accuracy-budget"
        )
    first = candidates[0]
    # If the first is over the budget, a candidate has to be chosen even if none is faster.
    worth_it = [entry for entry in within if entry is first or entry.is_faster or first not in within]
    return max(worth_it, key=lambda entry: (entry.timing and entry.timing.speedup) or 0)


def without_speedup(candidate: PrecisionCandidate) -> PrecisionCandidate:
    """Return a candidate without its speed-up, for an unreliable timing; the latency is kept."""
    if candidate.timing is None:
        return candidate
    return replace(candidate, timing=replace(candidate.timing, speedup=None, speedup_interval=None))
