"""Tables and lines about precision: ranges, accuracy, sensitivity, verdicts on engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.reporting.table import Table, interval_text, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.bundle.accuracy import PrecisionAccuracy
    from ccr_deploy.bundle.manifest import CalibrationRecord
    from ccr_deploy.engines.verdict import Verdict
    from ccr_deploy.quantization.clipping import ClippingReport
    from ccr_deploy.quantization.sensitivity import LayerSensitivity
    from ccr_deploy.quantization.table import CalibrationTable, Disagreement


def ranges_table(table: CalibrationTable) -> Table:
    """Return a row for each signal: its largest absolute value in each iteration, and its range."""
    signals = {
        f"{stage} {signal}": magnitudes
        for stage, ranges in table.stages.items()
        for signal, magnitudes in ranges.magnitudes().items()
    }
    iterations = max(max(magnitudes) for magnitudes in signals.values())
    rows = []
    for name, magnitudes in signals.items():
        each = magnitudes if len(magnitudes) > 1 else {}
        cells = (number(each.get(iteration), 3) for iteration in range(1, iterations + 1))
        rows.append((name, *cells, number(max(magnitudes.values()), 3)))
    return Table(
        title=f"Activation ranges on {table.image_count} images",
        columns=("signal", *(f"t={iteration}" for iteration in range(1, iterations + 1)), "range ±"),
        rows=tuple(rows),
        note="t: iteration; range: largest absolute value; all iterations share one scale, range / 127",
    )


def accuracy_table(calibration: CalibrationRecord) -> Table:
    """Return a row for each precision: its codes, classes and accuracy against FP32."""
    first = calibration.accuracies[0]
    emulated = [
        f"; {row.label}: emulated by rounding the {PRECISIONS[row.emulated_graph].label} graph"
        for row in PRECISIONS.values()
        if row.emulated_graph != row.name
    ]
    return Table.of(
        "Accuracy per precision",
        calibration.accuracies,
        [
            ("precision", lambda entry: entry.precision.upper()),
            ("bits flipped", lambda entry: f"{entry.flipped_bits} ({entry.flipped_percent:.3f} %)"),
            ("payloads equal", lambda entry: f"{entry.equal_payloads} of {entry.images}"),
            ("same top-1", lambda entry: f"{entry.same_top1} of {entry.images}"),
            ("top-1", lambda entry: number(entry.top1_percent, 1, " %")),
            ("95 % interval", lambda entry: interval_text(entry.top1_interval_percent, 1)),
            ("top-1 loss (points)", lambda entry: number(entry.top1_loss_points, 2)),
            ("95 % interval", lambda entry: interval_text(entry.top1_loss_interval_points, 2)),
        ],
        note=f"{first.images} images in {first.groups} groups ({calibration.images}), measured with the "
        f"graphs on a CPU, compared with FP32{''.join(emulated)}",
    )


def sensitivity_table(layers: Sequence[LayerSensitivity], proposed: Sequence[str]) -> Table:
    """Return a row for each layer, the most sensitive first."""
    advice = ", ".join(proposed) or "none"
    return Table.of(
        "Sensitivity: each layer quantized alone",
        layers,
        [
            ("layer", lambda layer: f"{layer.stage} {layer.layer}"),
            ("bits flipped", lambda layer: number(layer.flipped_percent, 3, " %")),
            ("top-1 changed", lambda layer: number(layer.changed_answers_percent, 2, " %")),
            ("share of the work", lambda layer: number(100 * layer.work_share, 1, " %")),
            ("advice", lambda layer: "high precision" if layer.layer in proposed else "INT8"),
        ],
        note=f"sensitive layers with a small share of the work: {advice} (use --keep-high-precision auto)",
    )


def comparison_table(entries: Sequence[Disagreement], first: str, second: str) -> Table:
    """Return a row for each tensor whose range differs between two calibration tables.

    Args:
        entries: the differences.
        first: name of the table A.
        second: name of the table B.
    """
    return Table.of(
        "Different ranges",
        entries,
        [
            ("tensor", lambda entry: f"{entry.stage} {entry.tensor}"),
            ("A ±", lambda entry: number(entry.first, 4) or "missing"),
            ("B ±", lambda entry: number(entry.second, 4) or "missing"),
            ("B / A", lambda entry: number(entry.ratio, 3)),
        ],
        note=f"A: {first}; B: {second}",
    )


SHOWN_TENSORS = 15


def clipping_table(report: ClippingReport) -> Table:
    """Return a row for each of the tensors that are the furthest over their limit, or the nearest to it."""
    more = len(report.tensors) - SHOWN_TENSORS
    return Table.of(
        f"Clipped activations on {report.image_count} images",
        report.tensors[:SHOWN_TENSORS],
        [
            ("tensor", lambda entry: f"{entry.stage} {entry.tensor}"),
            ("clipped", lambda entry: number(entry.clipped_percent, 3, " %")),
            ("calibration images", lambda entry: number(entry.calibration_clipped_percent, 3, " %") or "?"),
            ("limit", lambda entry: number(entry.limit_percent, 2, " %")),
            ("result", lambda entry: "FAIL" if entry.is_over else "pass"),
        ],
        note="clipped: values beyond the INT8 range; calibration images: the same share on the "
        f"{report.calibration_image_count} images of the calibration"
        + (f"; {more} more tensors are further below their limits" if more > 0 else ""),
    )


def speed_line(verdict: Verdict, *, is_timing_asked: bool = True) -> str:
    """Return the speed-up of an engine over the first candidate, or the reason why there is none."""
    own, first = verdict.candidate, verdict.candidates[0]
    name, baseline = own.precision.upper(), first.precision.upper()
    if len(verdict.candidates) == 1 and verdict.refused:
        return f"{name} was not timed: it is the only precision that could be built"
    if verdict.unreliable_reasons:
        reasons = "; ".join(verdict.unreliable_reasons)
        return f"{name}: the timing is UNRELIABLE ({reasons}): build again on an idle machine"
    if own.timing is None or first.timing is None:
        reason = "this machine cannot run the engine" if is_timing_asked else "--no-timing was given"
        return f"{name} was not timed: {reason}"
    if own is first:
        others = ", ".join(entry.precision.upper() for entry in verdict.candidates[1:])
        return f"{name} is kept: no precision within the accuracy budget is faster (compared: {others})"
    assert own.timing.speedup is not None
    interval = interval_text(own.timing.speedup_interval, 2)
    times = (
        f"{own.timing.speedup:.2f} times as fast as {baseline} "
        f"(95 % interval {interval}; {own.timing.latency_ms_p50:.2f} ms, {baseline} "
        f"{first.timing.latency_ms_p50:.2f} ms)"
    )
    return f"{name} is {times}" if own.is_faster else f"{name} is NOT FASTER on this machine: {times}"


def refused_lines(verdict: Verdict) -> list[str]:
    """Return a line for each precision that could not be built, with the reason."""
    return [f"{entry.precision.upper()} was skipped: {entry.reason}" for entry in verdict.refused]


def cost_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """Return lines about the accuracy loss of each precision, for the whole chain."""
    lines = []
    for verdict in {verdict.precision: verdict for verdict in verdicts}.values():
        own = verdict.candidate
        name = own.precision.upper()
        if own.accuracy is not None and own.precision != "fp32":
            lines.append(f"{name} accuracy: {_cost(own.accuracy)}: {_budget(verdict)}")
        elif own.precision != "fp32":
            lines.append(
                f"{name} accuracy: not recorded in the bundle: run ccr-deploy calibrate BUNDLE --images DIR "
                "--held-out DIR"
            )
        if verdict.high_precision:
            lines.append(f"layers in high precision: {', '.join(verdict.high_precision)}")
    return lines


def _cost(accuracy: PrecisionAccuracy) -> str:
    flips = f"{accuracy.flipped_percent:.2f} % of bits flipped"
    if accuracy.top1_loss_points is None or accuracy.top1_loss_interval_points is None:
        return f"{flips}, {100 - accuracy.same_top1_percent:.1f} % of top-1 classes changed"
    return (
        f"{flips}, {accuracy.top1_loss_points:.1f} points of top-1 lost "
        f"({interval_text(accuracy.top1_loss_interval_points, 1)}) on {accuracy.images} held-out images"
    )


def _budget(verdict: Verdict) -> str:
    budget = f"{verdict.accuracy_budget_points:g} points"
    if verdict.is_within_budget:
        return f"within the budget of {budget}"
    return f"OVER THE BUDGET of {budget} (find sensitive layers with ccr-deploy calibrate --sensitivity)"
