"""The sections of the HTML report, in their order: what decides first, then details."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ccr_deploy.reporting.code_plots import channels_plot, margins_plot
from ccr_deploy.reporting.evidence import joined_table
from ccr_deploy.reporting.plots import accuracy_plot, speedup_plot
from ccr_deploy.reporting.precision_tables import accuracy_table
from ccr_deploy.reporting.section import Section, ShownImage
from ccr_deploy.reporting.tables import benchmark_tables
from ccr_deploy.reporting.tolerance_section import tolerance_section
from ccr_deploy.reporting.tolerance_tables import flip_limits_table
from ccr_deploy.reporting.verification_tables import (
    accuracies_table,
    codes_table,
    gate_results_table,
    logits_table,
    matrix_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ccr_deploy.benchmarking.results import BenchmarkReport
    from ccr_deploy.reporting.table import Table
    from ccr_deploy.verification.results import (
        ChangedAnswer,
        CodeParity,
        MatrixCell,
        SampleAnswer,
        VerificationReport,
    )

_FULL_SHADE_POINTS = 2.0
"""A cell of the matrix with this loss, or with this share of changed classes in percent, is fully shaded."""


def sections(verification: VerificationReport | None, benchmark: BenchmarkReport | None) -> list[Section]:
    """Return the sections of a report, in their order.

    Args:
        verification: result of `verify`, or None.
        benchmark: result of `benchmark`, or None.
    """
    found = [*_verification_sections(verification)] if verification else []
    if benchmark:
        found += _benchmark_sections(verification, benchmark)
    if verification and verification.samples:
        found.append(_samples(verification.samples))
    return found


def _verification_sections(report: VerificationReport) -> Iterator[Section]:
    code = next((code for code in report.codes if (code.level, code.against) == ("engine", "pytorch")), None)
    if report.tolerance:
        yield tolerance_section(report.tolerance, report)
    if code:
        yield _margins(code)
    if report.matrix:
        yield _matrix(report.matrix)
    if report.accuracies:
        table = accuracies_table(report)
        text = "Dots: top-1 accuracy; bars: its 95 % interval."
        yield Section(table.title, text, accuracy_plot(report), table)
    if report.calibration and report.calibration.accuracies:
        table = accuracy_table(report.calibration)
        yield Section(table.title, table=table)
    if report.changed_answers:
        yield _changed_answers(report)
    yield Section("Gates", table=_gates_table(report))
    if any(gate.limit_reason for gate in report.gates):
        table = flip_limits_table(report)
        yield Section(table.title, table=table)
    for table in (codes_table(report), logits_table(report)):
        yield Section(table.title, table=table)
    if code and (plot := channels_plot(code)):
        text = f"Bits of each channel that the engine flips, of {code.bits // len(code.channel_flips):,}."
        yield Section("Flips per channel", text, plot)


def _margins(code: CodeParity) -> Section:
    flips = {
        "none": "The engine flips no bit.",
        "rounding": "Most bits that the engine flips are near 0, as rounding flips them.",
        "not rounding": "The engine flips bits that are not near 0: rounding does not explain them.",
    }
    text = (
        "How far each bit's pre-binarization activation is from 0, where its bit changes, in standard "
        f"deviations of its image's activations. {flips[code.flip_kind]}"
    )
    if code.median_margin is not None and code.median_flipped_margin is not None:
        medians = f"{code.median_flipped_margin:.2g} for flipped bits, {code.median_margin:.2g} for all bits"
        text += f" Median margin: {medians}."
    return Section("Margins of the bits", text, margins_plot(code))


def _matrix(cells: Sequence[MatrixCell]) -> Section:
    table = matrix_table(cells)
    costs = {
        (cell.encoder.upper(), cell.classifier.upper()): cell.top1_loss_points
        if cell.top1_loss_points is not None
        else 100 * (1 - cell.same_top1 / cell.images)
        for cell in cells
    }
    classifiers = list(dict.fromkeys(cell.classifier.upper() for cell in cells))
    shades = tuple(
        tuple(min(1, max(0, costs[row[0], name] / _FULL_SHADE_POINTS)) for name in classifiers)
        for row in table.rows
    )
    text = "Encoder and classifier may run on different machines. The redder a cell, the more it loses."
    return Section(table.title, text, table=table, shades=shades)


def _gates_table(report: VerificationReport) -> Table:
    """Return the table of gates with a column for what each gate protects from."""
    table = gate_results_table(report)
    reasons = {result.gate: result.protects_from for result in report.gates}
    rows = tuple((*row, reasons[row[0]]) for row in table.rows)
    return replace(table, columns=(*table.columns, "protects from"), rows=rows)


def _changed_answers(report: VerificationReport) -> Section:
    changed = sum(
        parity.images - parity.same_top1
        for parity in report.logits
        if (parity.stage, parity.level, parity.against) == ("chain", "engine", "pytorch")
    )
    shown = len(report.changed_answers)
    text = f"The engines answer otherwise than PyTorch for {changed} of {report.image_count} images" + (
        f"; these are the first {shown}." if shown < changed else "."
    )
    if any(answer.label for answer in report.changed_answers):
        text += " Green: only the engines are right; red: only PyTorch is right."
    images = tuple(_changed_answer(answer) for answer in report.changed_answers)
    return Section("Changed answers", text, images=images)


def _changed_answer(answer: ChangedAnswer) -> ShownImage:
    no_answer = "NaN or infinity"
    mark = "pass" if answer.label == answer.answer else "fail" if answer.label == answer.reference else ""
    return ShownImage(
        answer.name,
        answer.thumbnail_png_base64,
        f"{answer.reference or no_answer} → {answer.answer or no_answer}",
        mark if answer.label else "",
        (
            f"{100 * answer.reference_probability:.0f} % → {100 * answer.probability:.0f} %",
            *([f"label: {answer.label}"] if answer.label else []),
            f"{answer.flipped_bits} flipped bit" + ("" if answer.flipped_bits == 1 else "s"),
            answer.name,
        ),
    )


def _samples(samples: Sequence[SampleAnswer]) -> Section:
    text = (
        "Class and probability from the engines. The payload is everything that is sent over the network; "
        "the JPEG (quality 75) has the same pixels, for comparison."
    )
    return Section("Sample images", text, images=tuple(map(_sample, samples)))


def _sample(sample: SampleAnswer) -> ShownImage:
    wrong = [f"label: {sample.label}"] if sample.label and sample.label != sample.answer else []
    mark = "" if not sample.label else "fail" if wrong else "pass"
    return ShownImage(
        sample.name,
        sample.thumbnail_png_base64,
        f"{sample.answer} {100 * sample.probability:.0f} %",
        mark,
        (*wrong, f"payload {sample.payload_bytes} bytes", f"JPEG {sample.jpeg_bytes} bytes"),
    )


def _benchmark_sections(
    verification: VerificationReport | None, benchmark: BenchmarkReport
) -> Iterator[Section]:
    if verification:
        summary = joined_table(verification, benchmark)
        yield Section(summary.title, table=summary)
    plot = speedup_plot(benchmark)
    for table in benchmark_tables(benchmark):
        yield Section(table.title, _speedup_text(benchmark) if plot else "", plot, table)


def _speedup_text(report: BenchmarkReport) -> str:
    return (
        f"Ratio of PyTorch eager's median latency to the candidate's, with its 95 % interval, batch "
        f"{report.batch}. Coloured: the engines of the target {report.target}."
    )
