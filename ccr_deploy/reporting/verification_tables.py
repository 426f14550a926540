"""Tables of a verification, of its gates, and of several devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.reporting.precision_tables import accuracy_table
from ccr_deploy.reporting.table import Table, interval_text, number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ccr_deploy.verification.devices import DeviceResult
    from ccr_deploy.verification.gates import Gate
    from ccr_deploy.verification.results import (
        ChainAccuracy,
        CodeParity,
        GateResult,
        Level,
        MatrixCell,
        VerificationReport,
        Way,
    )

_NO_RESULT = "–"
SHOWN_IMAGES = 10


def verification_tables(report: VerificationReport) -> list[Table]:
    """Return the tables of a verification: parity, accuracy and gates."""
    tables = [_codes_table(report), _logits_table(report)]
    if report.accuracies:
        tables.append(
            Table.of(
                "Accuracy",
                report.accuracies,
                [
                    ("chain", lambda accuracy: way_label(accuracy.chain)),
                    ("images", lambda accuracy: str(accuracy.images)),
                    ("top-1", lambda accuracy: number(accuracy.top1_percent, 1, " %")),
                    ("95 % interval", lambda accuracy: interval_text(accuracy.top1_interval_percent, 1)),
                    ("top-5", lambda accuracy: number(accuracy.top5_percent, 1, " %")),
                    ("95 % interval", lambda accuracy: interval_text(accuracy.top5_interval_percent, 1)),
                    ("lost / gained", lambda accuracy: _change(report, accuracy)[0]),
                    ("p", lambda accuracy: _change(report, accuracy)[1]),
                ],
                note=f"95 % intervals are bootstrapped over {report.accuracies[0].groups} groups of images; "
                "lost / gained: images that only PyTorch / only this chain classifies correctly; p: "
                "McNemar's exact test that both are equally probable",
            )
        )
    if report.matrix:
        tables.append(matrix_table(report.matrix))
    if report.calibration and report.calibration.accuracies:
        tables.append(accuracy_table(report.calibration))
    return [*tables, gate_results_table(report)]


def matrix_table(cells: Sequence[MatrixCell]) -> Table:
    """Return a row for each encoder precision, a column for each classifier precision."""
    encoders = list(dict.fromkeys(cell.encoder for cell in cells))
    classifiers = list(dict.fromkeys(cell.classifier for cell in cells))
    found = {(cell.encoder, cell.classifier): cell for cell in cells}
    has_labels = cells[0].top1_percent is not None
    shown = "top-1 (loss in points)" if has_labels else "classes equal to PyTorch's"
    return Table(
        title="Encoder and classifier precisions",
        columns=("encoder", *(f"classifier {precision.upper()}" for precision in classifiers)),
        rows=tuple(
            (encoder.upper(), *(_matrix_cell(found[encoder, classifier]) for classifier in classifiers))
            for encoder in encoders
        ),
        note=f"{shown} on {cells[0].images} images, computed with the graphs on a CPU",
    )


def _matrix_cell(cell: MatrixCell) -> str:
    if cell.top1_percent is None:
        return f"{100 * cell.same_top1 / cell.images:.1f} %"
    return f"{cell.top1_percent:.1f} % ({number(cell.top1_loss_points, 2)})"


def gate_results_table(report: VerificationReport) -> Table:
    """Return a row for each gate: the value and limit of each way, and whether the gate passed."""
    levels = list(dict.fromkeys(result.level for result in report.gates))
    by_gate: dict[str, dict[Level, GateResult]] = {}
    for result in report.gates:
        by_gate.setdefault(result.gate, {})[result.level] = result

    def cell(result: GateResult | None) -> str:
        if result is None:
            return _NO_RESULT
        sign = "≤" if result.direction == "at most" else "≥"
        return f"{result.found:.6g} {sign} {result.limit:g}" + ("" if result.passed else " FAIL")

    return Table(
        title="Gates",
        columns=("gate", *map(way_label, levels), "result"),
        rows=tuple(
            (
                gate,
                *(cell(results.get(level)) for level in levels),
                "pass" if all(result.passed for result in results.values()) else "FAIL",
            )
            for gate, results in by_gate.items()
        ),
    )


def _change(report: VerificationReport, accuracy: ChainAccuracy) -> tuple[str, str]:
    """Return the lost and gained images of a chain, and the p-value of McNemar's test, as cells."""
    for change in report.accuracy_changes:
        if change.level == accuracy.chain:
            return f"{change.lost} / {change.gained}", f"{change.p_value:.2g}"
    return "", ""


def _codes_table(report: VerificationReport) -> Table:
    """Return a row for each way: the parity of its codes with the reference, and with the step before."""
    compared = [parity for parity in report.codes if parity.against == "pytorch"]
    before = {parity.level: parity for parity in report.codes if parity.against != "pytorch"}
    return Table.of(
        "Codes compared with PyTorch" + (", recorded in a golden file" if report.golden else ""),
        compared,
        [
            ("step", lambda parity: way_label(parity.level)),
            ("payloads equal", lambda parity: f"{parity.equal_payloads} of {parity.images}"),
            ("bits flipped", _flips),
            ("kind", lambda parity: parity.flip_kind),
            ("median margin", lambda parity: number(parity.median_flipped_margin, 4)),
            ("flipped since the step before", lambda parity: _flips(before.get(parity.level))),
        ],
        note="steps: PyTorch, the ONNX graphs, run node by node and not optimized, the target's engine; "
        "median margin: distance from 0 of the flipped bits' activations, in standard deviations; that of "
        f"all bits is {number(compared[0].median_margin, 2) or 'not known'}; rounding flips bits near 0",
    )


def _flips(parity: CodeParity | None) -> str:
    if parity is None:
        return ""
    share = f" ({parity.flipped_percent:.2g} %)" if parity.flipped_bits else ""
    return f"{parity.flipped_bits} of {parity.bits}{share}"


def _logits_table(report: VerificationReport) -> Table:
    """Return a row for each stage and way: the parity of its logits with the reference."""
    before = {
        (parity.stage, parity.level): number(parity.min_cosine, 6)
        for parity in report.logits
        if parity.against != "pytorch"
    }
    return Table.of(
        "Logits compared with PyTorch",
        [parity for parity in report.logits if parity.against == "pytorch"],
        [
            ("stage", lambda parity: f"{parity.stage} {way_label(parity.level)}"),
            ("max difference", lambda parity: f"{parity.max_difference:.2g}"),
            ("mean", lambda parity: f"{parity.mean_difference:.2g}"),
            ("min cosine", lambda parity: number(parity.min_cosine, 6)),
            ("with the step before", lambda parity: before.get((parity.stage, parity.level), "")),
            ("mean KL", lambda parity: f"{parity.mean_kl_divergence:.1e}"),
            ("same top-1", lambda parity: f"{parity.same_top1} of {parity.images}"),
            ("top-5 overlap", lambda parity: number(parity.same_top5_percent, 1, " %")),
        ],
        note="classifier: reads PyTorch's codes; chain: reads the codes of its own encoder; "
        "KL: divergence of the classes' probabilities, in nats",
    )


def way_label(way: Way) -> str:
    """Return the name of a way to run the chain, as reports show it."""
    return {"pytorch": "PyTorch", "fp32-graph": "FP32 graph"}.get(way, way)


def gate_table(gates: Sequence[Gate[Any]]) -> Table:
    """Return a row for each gate: its name, its limit for each precision, and its description."""
    return Table(
        title="Gates",
        columns=("gate", *(row.label for row in PRECISIONS.values()), "meaning"),
        rows=tuple((gate.name, *map(gate.limit_text, PRECISIONS), gate.help) for gate in gates),
        note="Change a limit with ccr-deploy verify --gate NAME=LIMIT",
    )


def devices_table(devices: Sequence[DeviceResult]) -> Table:
    """Return one row per device: its agreement with the first on the same golden file."""
    others = [f"{device.path}: {name}" for device in devices for name in device.other_class]
    return Table.of(
        "Agreement of devices",
        devices,
        [
            ("result", lambda device: str(device.path)),
            ("target", lambda device: device.target),
            ("engines", lambda device: device.engines),
            ("payloads equal", lambda device: f"{device.equal_payloads} of {device.images}"),
            ("classes equal", lambda device: f"{device.same_top1} of {device.images}"),
            ("max probability difference", lambda device: f"{device.max_probability_difference:.2g}"),
            ("gates", lambda device: "pass" if device.passed else "FAIL"),
        ],
        note=f"compared with {devices[0].path}"
        + (f"; other class: {', '.join(others[:SHOWN_IMAGES])}" if others else "")
        + (f" and {len(others) - SHOWN_IMAGES} more" if len(others) > SHOWN_IMAGES else ""),
    )
