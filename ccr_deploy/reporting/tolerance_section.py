"""The flip tolerance in the HTML report: the curves, with what was measured on the graphs and engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.code_plots import MeasuredPoint, ToleranceCurve, tolerance_plot
from ccr_deploy.reporting.section import Section
from ccr_deploy.reporting.tolerance_tables import tolerance_table
from ccr_deploy.reporting.verification_tables import way_label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.bundle.tolerance import FlipTolerance
    from ccr_deploy.verification.results import VerificationReport

_LOSS_GATE = "max-top1-loss-points"


def tolerance_section(tolerance: FlipTolerance, report: VerificationReport) -> Section:
    """Return the section: lost accuracy, or changed classes if no image of the curve has a label."""
    has_labels = tolerance.labelled_groups > 0
    cost = "lost top-1 accuracy in points" if has_labels else "changed top-1 classes in %"
    near, random = tolerance.curve("near zero"), tolerance.curve("random")
    curves = [
        ToleranceCurve(
            label,
            [entry.flipped_percent for entry in curve],
            [
                100 - entry.same_top1_percent if entry.top1_loss_points is None else entry.top1_loss_points
                for entry in curve
            ],
            [entry.top1_loss_interval_points for entry in curve],
        )
        for label, curve in (("bits near zero", near), ("random bits", random))
    ]
    points = list(_measured_losses(report) if has_labels else _changed_classes(report))
    limits = [gate.limit for gate in report.gates if (gate.name, gate.level) == (_LOSS_GATE, "engine")]
    text = (
        f"What it costs to flip bits of each code, measured on {tolerance.image_count} images: those nearest "
        "to zero, which rounding flips first, and random ones. Shaded: 95 % intervals. Symbols without a "
        "line: graph and engine, as this verification measured them. The axis of the cost is logarithmic "
        "above 1."
    )
    plot = tolerance_plot(curves, points, cost=cost, limit=limits[0] if limits and has_labels else None)
    return Section("Flip tolerance", text, plot, tolerance_table(tolerance))


def _measured_losses(report: VerificationReport) -> Iterator[MeasuredPoint]:
    losses = {change.level: change for change in report.accuracy_changes}
    for code in report.codes:
        if code.against == "pytorch" and (loss := losses.get(code.level)):
            yield MeasuredPoint(
                way_label(code.level),
                code.flipped_percent,
                loss.top1_loss_points,
                loss.top1_loss_interval_points,
            )


def _changed_classes(report: VerificationReport) -> Iterator[MeasuredPoint]:
    same = {
        parity.level: parity.same_top1 / parity.images
        for parity in report.logits
        if (parity.stage, parity.against) == ("chain", "pytorch")
    }
    for code in report.codes:
        if code.against == "pytorch":
            changed = 100 * (1 - same[code.level])
            yield MeasuredPoint(way_label(code.level), code.flipped_percent, changed, None)
