"""The trade-off between accuracy, latency and size over precisions: its points, front and table.

A latency is joined with a measured accuracy only if both are of the same engine files, by SHA-256. The other
precisions have the accuracy that was predicted with their graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.core.metrics import Interval
from ccr_deploy.reporting.table import Table, interval_text, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ccr_deploy.benchmarking.results import BenchmarkReport, Timing
    from ccr_deploy.bundle.accuracy import PrecisionAccuracy
    from ccr_deploy.verification.results import MatrixCell, VerificationReport

_CHAIN_ENGINES = 2


@dataclass(frozen=True)
class ParetoPoint:
    """One candidate of the chain.

    `accuracy` is the top-1 accuracy minus PyTorch's in points, or without labels the share of images with
    PyTorch's class in percent. `source` says where it comes from: "measured" if the timed engines were
    verified, else "predicted"; "reference" for PyTorch itself.
    """

    name: str
    is_target: bool
    latency_ms: float
    megabytes: float | None
    accuracy: float
    interval: Interval | None
    source: str


@dataclass(frozen=True)
class Pareto:
    """The points, the quantity on the axis of accuracy, and what PyTorch's own accuracy is."""

    points: tuple[ParetoPoint, ...]
    quantity: str
    is_labelled: bool

    @property
    def latency_front(self) -> list[ParetoPoint]:
        """The points that no other one dominates in latency and accuracy."""
        return _front(self.points, lambda point: point.latency_ms)

    @property
    def size_front(self) -> list[ParetoPoint]:
        """The points that no other one dominates in size and accuracy."""
        sized = [point for point in self.points if point.megabytes is not None]
        return _front(sized, lambda point: point.megabytes or 0)


def pareto(verification: VerificationReport, benchmark: BenchmarkReport) -> Pareto | None:
    """Join accuracies and latencies of the chain; return None if fewer than two candidates have both.

    Args:
        verification: the result of `verify`, with the bundle's predicted accuracies.
        benchmark: the result of `benchmark` for the same bundle and target.
    """
    is_labelled = any(change.level == "engine" for change in verification.accuracy_changes)
    reference = next((timing for timing in benchmark.timings if timing.subject == "chain"), None)
    found = [
        point
        for timing in benchmark.timings
        if timing.subject == "chain"
        if (point := _point(timing, verification, is_labelled=is_labelled, is_reference=timing is reference))
    ]
    if len(found) < 2:
        return None
    quantity = "top-1 minus PyTorch's, points" if is_labelled else "images with PyTorch's class, %"
    return Pareto(tuple(found), quantity, is_labelled)


def _point(
    timing: Timing, verification: VerificationReport, *, is_labelled: bool, is_reference: bool
) -> ParetoPoint | None:
    """Return the point of a candidate; None if its accuracy is not known."""
    name = " + ".join(dict.fromkeys(precision.upper() for precision in timing.precisions))
    if is_reference:
        name, source = timing.candidate, "reference"
        known: tuple[float, Interval | None] | None = (0.0 if is_labelled else 100.0, None)
    elif _is_verified(timing, verification):
        source, known = "measured", _measured(verification, is_labelled=is_labelled)
    elif _is_engine(timing, verification):
        source, known = "predicted", _predicted(timing, verification, is_labelled=is_labelled)
    else:
        return None
    if known is None:
        return None
    megabytes = sum(timing.engine_bytes) / 1e6 if timing.engine_bytes else None
    return ParetoPoint(name, timing.is_target, timing.latency_ms_p50, megabytes, *known, source)


def _is_verified(timing: Timing, verification: VerificationReport) -> bool:
    verified = {engine.stage: engine.engine_sha256 for engine in verification.engines}
    return timing.engines_sha256 == (verified.get("encoder"), verified.get("classifier"))


def _is_engine(timing: Timing, verification: VerificationReport) -> bool:
    """Return whether a candidate runs encoder and classifier of the bundle, not in PyTorch."""
    backends = {engine.backend for engine in verification.engines}
    return len(timing.precisions) == _CHAIN_ENGINES and timing.candidate.split()[0] in backends


def _measured(verification: VerificationReport, *, is_labelled: bool) -> tuple[float, Interval | None] | None:
    if is_labelled:
        changes = [change for change in verification.accuracy_changes if change.level == "engine"]
        return _minus(changes[0].top1_loss_points, changes[0].top1_loss_interval_points)
    for parity in verification.logits:
        if (parity.stage, parity.level, parity.against) == ("chain", "engine", "pytorch"):
            return 100 * parity.same_top1 / parity.images, None
    return None


def _predicted(
    timing: Timing, verification: VerificationReport, *, is_labelled: bool
) -> tuple[float, Interval | None] | None:
    """Return the accuracy of the graphs, on the images of `verify` or else on those of the calibration."""
    encoder, classifier = timing.precisions
    entries: list[MatrixCell | PrecisionAccuracy] = [
        cell for cell in verification.matrix if (cell.encoder, cell.classifier) == (encoder, classifier)
    ]
    if verification.calibration and encoder == classifier:
        entries += [entry for entry in verification.calibration.accuracies if entry.precision == encoder]
    for entry in entries:
        if not is_labelled:
            return 100 * entry.same_top1 / entry.images, None
        if entry.top1_loss_points is not None:
            return _minus(entry.top1_loss_points, entry.top1_loss_interval_points)
    return None


def _minus(loss: float, interval: Interval | None) -> tuple[float, Interval | None]:
    """Return a loss of accuracy as a change, which is 0 or negative if accuracy was lost."""
    return 0.0 - loss, interval and Interval(0.0 - interval.high, 0.0 - interval.low)


def _front(points: Sequence[ParetoPoint], cost: Callable[[ParetoPoint], float]) -> list[ParetoPoint]:
    """Return the points that no other one dominates, the cheapest first."""

    def dominates(one: ParetoPoint, other: ParetoPoint) -> bool:
        gains = cost(other) - cost(one), one.accuracy - other.accuracy
        return min(gains) >= 0 and max(gains) > 0

    front = [point for point in points if not any(dominates(other, point) for other in points)]
    return sorted(front, key=cost)


def pareto_table(found: Pareto) -> Table:
    """Return a row for each point: accuracy and its source, latency, size, and whether it is on a front."""
    fronts = found.latency_front, found.size_front
    digits = 2 if found.is_labelled else 1

    def on_front(front: Sequence[ParetoPoint]) -> Callable[[ParetoPoint], str]:
        return lambda point: "yes" if point in front else "no"

    return Table.of(
        "Accuracy against latency and size",
        found.points,
        [
            ("chain", lambda point: point.name + (" (target)" if point.is_target else "")),
            (found.quantity, lambda point: f"{point.accuracy:.{digits}f}"),
            ("95 % interval", lambda point: interval_text(point.interval, digits)),
            ("accuracy", lambda point: point.source),
            ("p50 ms", lambda point: significant(point.latency_ms)),
            ("engines MB", lambda point: "" if point.megabytes is None else significant(point.megabytes)),
            ("on the latency front", on_front(fronts[0])),
            ("on the size front", on_front(fronts[1])),
        ],
        note="measured: the timed engines are the verified ones, by SHA-256; predicted: with the graphs, on "
        "the images of verify --matrix or of the calibration; front: no other candidate is as accurate and "
        "costs less",
    )
