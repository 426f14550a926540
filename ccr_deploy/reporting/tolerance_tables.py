"""Tables of the flip tolerance, and of the limits that are derived from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.table import Table, interval_text, number

if TYPE_CHECKING:
    from ccr_deploy.bundle.tolerance import FlipTolerance
    from ccr_deploy.verification.results import VerificationReport


def tolerance_table(tolerance: FlipTolerance) -> Table:
    """Return a row for each share of flipped bits: its cost if the bits are near zero, and if random."""
    images = (
        f"{tolerance.image_count} images ({tolerance.images}), {tolerance.labelled_groups} labelled groups"
    )
    few = tolerance.too_few_labels
    limits = f"verify keeps its fixed limits: {few}" if few else "verify derives its limits from these losses"
    return Table.of(
        "Flip tolerance",
        zip(tolerance.curve("near zero"), tolerance.curve("random"), strict=True),
        [
            ("bits flipped", lambda pair: number(pair[0].flipped_percent, 2, " %")),
            ("near zero: same top-1", lambda pair: number(pair[0].same_top1_percent, 1, " %")),
            ("loss (points)", lambda pair: number(pair[0].top1_loss_points, 2)),
            ("95 % interval", lambda pair: interval_text(pair[0].top1_loss_interval_points, 2)),
            ("random: same top-1", lambda pair: number(pair[1].same_top1_percent, 1, " %")),
            ("loss (points)", lambda pair: number(pair[1].top1_loss_points, 2)),
            ("95 % interval", lambda pair: interval_text(pair[1].top1_loss_interval_points, 2)),
        ],
        note=f"{images}; near zero: the bits of each image that rounding flips first; loss: top-1 accuracy, "
        f"made monotone; {limits}",
    )


def flip_limits_table(report: VerificationReport) -> Table:
    """Return a row for each limit that is not the same for every model: what was found, and its reason."""
    return Table.of(
        "Limits of this model",
        [gate for gate in report.gates if gate.limit_reason],
        [
            ("gate", lambda gate: gate.name),
            ("step", lambda gate: gate.level),
            ("found", lambda gate: f"{gate.found:.3g}"),
            ("limit", lambda gate: f"{gate.limit:.3g}"),
            ("where the limit comes from", lambda gate: gate.limit_reason),
        ],
        note=""
        if report.golden or report.tolerance
        else "ccr-deploy verify BUNDLE --tolerance --images DIR "
        "measures the flip tolerance on labelled images",
    )
