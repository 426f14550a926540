"""Tables of a comparison of intermediate tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.verification_tables import way_label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.verification.layers import LayerComparison, LayerReport, TensorDifference

SHOWN_TENSORS = 10
"""Tensors over tolerance that are listed: the first ones show where the difference arises."""
SHOWN_NAMES = 6

_VERDICTS = {
    "equal": "within tolerance",
    "in both": "over tolerance in both",
    "only with extra outputs": "over tolerance only with extra outputs: the engine in use is not affected",
    "only without extra outputs": "over tolerance only without extra outputs: a fusion is the cause",
}


def layer_tables(report: LayerReport) -> list[Table]:
    """Return a summary, the first tensors over tolerance of each comparison, the outputs, and the flips."""
    tables = [_summary(report)]
    tables += [_over_tolerance(found) for found in report.comparisons if found.over_tolerance]
    tables.append(_outputs(report))
    if any(found.iterations for found in report.comparisons):
        tables.append(_iterations(report))
    return tables


def layer_lines(report: LayerReport) -> Iterator[str]:
    """Yield a line for tensors that cannot be compared, and for NaN and infinity."""
    for found in report.comparisons:
        if names := found.not_comparable:
            more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
            listed = ", ".join(names[:SHOWN_NAMES])
            yield f"{_title(found)}: not comparable, in one of the two only: {listed}{more}"
    for first in report.non_finite:
        way = way_label(first.way)
        yield f"{first.stage} {way}: {first.name} ({first.operator}) is the first tensor with NaN or infinity"


def _title(found: LayerComparison) -> str:
    return f"{found.stage} {way_label(found.level)} against {way_label(found.against)}"


def _summary(report: LayerReport) -> Table:
    def worst(found: LayerComparison) -> TensorDifference:
        return max(found.tensors, key=lambda tensor: tensor.error)

    return Table.of(
        "Layers, each step compared with the step before",
        report.comparisons,
        [
            ("step", _title),
            ("tensors", lambda found: str(len(found.tensors))),
            ("over tolerance", lambda found: str(len(found.over_tolerance))),
            ("tolerance", lambda found: f"{found.tolerance:g}"),
            ("largest error", lambda found: f"{worst(found).error:.2g}" if found.tensors else ""),
            ("of tensor", lambda found: worst(found).name if found.tensors else ""),
            ("result", lambda found: "pass" if found.passed else "FAIL"),
        ],
        note="error: root mean square of the difference in the worst channel, over that of the values",
    )


def _over_tolerance(found: LayerComparison) -> Table:
    listed = found.over_tolerance
    more = f"; {len(listed) - SHOWN_TENSORS} more follow" if len(listed) > SHOWN_TENSORS else ""
    return Table.of(
        f"First layers over tolerance: {_title(found)}",
        listed[:SHOWN_TENSORS],
        [
            ("tensor", lambda tensor: tensor.name),
            ("operator", lambda tensor: tensor.operator),
            ("error", lambda tensor: f"{tensor.error:.2g}"),
            ("error of its inputs", lambda tensor: f"{tensor.input_error:.2g}"),
            ("worst channel", lambda tensor: str(tensor.channel)),
        ],
        note=f"in the order of execution; the first one is where the difference arises{more}",
    )


def _outputs(report: LayerReport) -> Table:
    return Table.of(
        "Outputs, with the intermediate tensors as extra outputs and without them",
        report.comparisons,
        [
            ("step", _title),
            ("output", lambda found: found.output.name),
            ("error with", lambda found: f"{found.output.error:.2g}"),
            ("without", lambda found: f"{found.output.error_without_extra_outputs:.2g}"),
            ("tolerance", lambda found: f"{found.output.tolerance:g}"),
            ("verdict", lambda found: _VERDICTS[found.output.verdict]),
        ],
        note="extra outputs change what a backend fuses; the error of a code is its share of flipped bits",
    )


def _iterations(report: LayerReport) -> Table:
    return Table.of(
        "Flipped bits, if the encoder stopped after an iteration",
        [found for found in report.comparisons if found.iterations],
        [
            ("step", _title),
            (
                "flips after iteration 1, 2, …",
                lambda found: ", ".join(str(entry.flipped_bits) for entry in found.iterations),
            ),
            ("of bits", lambda found: str(found.iterations[0].bits)),
            ("first that differs", lambda found: str(found.first_flipped_iteration or "none")),
        ],
    )
