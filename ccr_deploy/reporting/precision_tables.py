"""Tables about precision: ranges, what layers and precisions cost, verdicts on engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.bundle.accuracy import PrecisionAccuracy
    from ccr_deploy.bundle.manifest import CalibrationRecord
    from ccr_deploy.core.metrics import Interval
    from ccr_deploy.engines.verdict import Verdict
    from ccr_deploy.quantization.sensitivity import LayerSensitivity
    from ccr_deploy.quantization.table import CalibrationTable, Disagreement


def ranges_table(table: CalibrationTable) -> Table:
    """One row a signal: its largest absolute value in each iteration, and the scale that all share."""
    signals = {
        f"{stage} {signal}": magnitudes
        for stage, ranges in table.stages.items()
        for signal, magnitudes in ranges.magnitudes().items()
    }
    iterations = max(max(magnitudes) for magnitudes in signals.values())
    rows = []
    for name, magnitudes in signals.items():
        each = [
            f"{magnitudes[number]:.3f}" if number in magnitudes else "" for number in range(1, iterations + 1)
        ]
        rows.append(
            (name, *(each if len(magnitudes) > 1 else [""] * iterations), f"{max(magnitudes.values()):.3f}")
        )
    return Table(
        title=f"Largest values, {table.image_count} pictures",
        columns=("signal", *(f"t={number}" for number in range(1, iterations + 1)), "range ±"),
        rows=tuple(rows),
        note="one scale for all iterations: the largest range / 127",
    )


def accuracy_table(calibration: CalibrationRecord) -> Table:
    """One row a precision."""
    first = calibration.accuracies[0]
    borrowed = [
        f"; {row.name}: {PRECISIONS[row.emulated_graph].label}'s graph rounded to {row.label}"
        for row in PRECISIONS.values()
        if row.emulated_graph != row.name
    ]
    return Table(
        title="What each precision costs",
        columns=(
            "precision",
            "bits flipped",
            "payloads equal",
            "answers equal",
            "top-1",
            "95 % interval",
            "top-1 loss (points)",
            "95 % interval",
        ),
        rows=tuple(_accuracy_row(entry) for entry in calibration.accuracies),
        note=f"{first.images} pictures in {first.groups} groups ({calibration.images}), computed from the "
        f"graphs, against FP32{''.join(borrowed)}",
    )


def sensitivity_table(layers: Sequence[LayerSensitivity], proposed: Sequence[str]) -> Table:
    """One row a layer, the most harmful first."""
    advice = ", ".join(proposed) or "none"
    return Table(
        title="What quantizing each layer alone costs",
        columns=("layer", "bits flipped", "answers changed", "share of the work", "advice"),
        rows=tuple(
            (
                f"{layer.stage} {layer.layer}",
                "" if layer.flipped_percent is None else f"{layer.flipped_percent:.3f} %",
                f"{layer.changed_answers_percent:.2f} %",
                f"{100 * layer.work_share:.1f} %",
                "high precision" if layer.layer in proposed else "INT8",
            )
            for layer in layers
        ),
        note=f"much harm for little work: {advice} (take it with --keep-high-precision auto)",
    )


def comparison_table(entries: Sequence[Disagreement], first: str, second: str) -> Table:
    """One row a tensor of two calibration tables that disagree about it."""

    def cell(value: float | None) -> str:
        return "missing" if value is None else f"{value:.4f}"

    return Table(
        title="Ranges that differ",
        columns=("tensor", "A ±", "B ±", "B / A"),
        rows=tuple(
            (
                f"{entry.stage} {entry.tensor}",
                cell(entry.first),
                cell(entry.second),
                "" if entry.ratio is None else f"{entry.ratio:.3f}",
            )
            for entry in entries
        ),
        note=f"A: {first}; B: {second}",
    )


def speed_line(verdict: Verdict) -> str:
    """How fast an engine is against the first of those that it was timed with, if the timing is reliable."""
    own, first = verdict.candidate, verdict.candidates[0]
    name, rival = own.precision.upper(), first.precision.upper()
    if len(verdict.candidates) == 1 and verdict.refused:
        return f"{name} is the only engine that could be built: there is nothing to compare it with"
    if verdict.unreliable_reasons:
        reasons = "; ".join(verdict.unreliable_reasons)
        return f"{name}: the timing is UNRELIABLE ({reasons}): build again on an idle machine"
    if own.timing is None or first.timing is None:
        return f"{name} was not timed: this machine cannot run it"
    if own is first:
        others = " and ".join(entry.precision.upper() for entry in verdict.candidates[1:])
        return f"{name} is kept: nothing faster within the accuracy budget ({others} was weighed)"
    assert own.timing.speedup is not None
    interval = _interval(own.timing.speedup_interval, digits=2)
    times = (
        f"{own.timing.speedup:.2f} times as fast as {rival} "
        f"({interval}; {own.timing.latency_ms_p50:.2f} ms against {first.timing.latency_ms_p50:.2f} ms)"
    )
    return f"{name} is {times}" if own.is_faster else f"{name} IS NOT FASTER here: {times}"


def refused_lines(verdict: Verdict) -> list[str]:
    """Why other precisions of the stage were dropped, a line each."""
    return [f"{entry.precision.upper()} was dropped: {entry.reason}" for entry in verdict.refused]


def cost_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """What the engines' precisions cost the whole chain, each precision once."""
    lines = []
    for verdict in {verdict.precision: verdict for verdict in verdicts}.values():
        own = verdict.candidate
        name = own.precision.upper()
        if own.accuracy is not None and own.precision != "fp32":
            lines.append(f"{name} costs the chain {_cost(own.accuracy)}: {_budget(verdict)}")
        elif own.precision != "fp32":
            lines.append(
                f"what {name} costs is not known: the bundle has no record of it (ccr-deploy calibrate)"
            )
        if verdict.high_precision:
            lines.append(f"layers left in high precision: {', '.join(verdict.high_precision)}")
    return lines


def _cost(accuracy: PrecisionAccuracy) -> str:
    flips = f"{accuracy.flipped_percent:.2f} % of bits flipped"
    if accuracy.top1_loss_points is None or accuracy.top1_loss_interval_points is None:
        return f"{flips}, {100 - accuracy.same_top1_percent:.1f} % of answers changed"
    return (
        f"{flips}, {accuracy.top1_loss_points:.1f} points of top-1 "
        f"({_interval(accuracy.top1_loss_interval_points)}) on {accuracy.images} held-out pictures"
    )


def _budget(verdict: Verdict) -> str:
    budget = f"{verdict.accuracy_budget_points:g} points"
    if verdict.is_within_budget:
        return f"within the budget of {budget}"
    return f"OVER THE BUDGET of {budget} (see ccr-deploy calibrate --sensitivity)"


def _accuracy_row(entry: PrecisionAccuracy) -> tuple[str, ...]:
    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1f} %"

    loss = entry.top1_loss_points
    return (
        entry.precision.upper(),
        f"{entry.flipped_bits} ({entry.flipped_percent:.3f} %)",
        f"{entry.equal_payloads} of {entry.images}",
        f"{entry.same_top1} of {entry.images}",
        percent(entry.top1_percent),
        _interval(entry.top1_interval_percent),
        "" if loss is None else f"{loss:.2f}",
        _interval(entry.top1_loss_interval_points, digits=2),
    )


def _interval(interval: Interval | None, digits: int = 1) -> str:
    return "" if interval is None else f"{interval.low:.{digits}f} – {interval.high:.{digits}f}"
