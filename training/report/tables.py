"""Tables of the report on trainings, and what in them is comparable with the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.paper import PAPER_TABLE_1
from ccr_deploy.models.presets import PRESETS
from ccr_deploy.reporting.table import Table, interval_text, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.benchmarking.table1_results import PaperRow
    from ccr_deploy.models.config import ModelConfig
    from training.evaluation.comparison import Comparison
    from training.evaluation.results import (
        Evaluation,
        IterationAccuracy,
        IterationQuality,
        Restoration,
    )
    from training.report.results import RunResults, TrainingReport


_PAPER_CLASSES = 100


@dataclass(frozen=True)
class _Row:
    """A run with one T."""

    run: str
    evaluation: Evaluation
    entry: IterationAccuracy

    @property
    def label(self) -> str:
        return f"{self.entry.iterations}" if self.entry.is_trained else f"{self.entry.iterations} (untrained)"


def report_tables(report: TrainingReport) -> list[Table]:
    """Return all tables of a report, in their order."""
    rows = _rows(report.runs)
    tables = [accuracy_table(report.runs), paper_table(report.runs), cost_table(report.runs)] if rows else []
    tables += [comparison_table(report.comparisons)] if report.comparisons else []
    return [
        *tables,
        *(restoration_table(run.name, run.restoration) for run in report.runs if run.restoration),
    ]


def accuracy_table(runs: Sequence[RunResults]) -> Table:
    """Return accuracy, payload bytes and parameters of each run and T."""
    tested = {
        f"{run.evaluation.data}: {run.evaluation.images:,} images in {run.evaluation.groups:,} groups, "
        f"{run.evaluation.config.classifier.classes} classes"
        for run in runs
        if run.evaluation
    }
    return Table.of(
        "Accuracy and payload",
        _rows(runs),
        [
            ("run", lambda row: row.run),
            ("T", lambda row: row.label),
            ("top-1 %", lambda row: number(row.entry.top1_percent, 1)),
            ("95 % interval", lambda row: interval_text(row.entry.top1_interval_percent, 1)),
            ("top-5 %", lambda row: number(row.entry.top5_percent, 1)),
            ("payload bytes", lambda row: f"{row.entry.payload_bytes:,}"),
            ("parameters", lambda row: f"{row.evaluation.parameters:,}"),
        ],
        note=f"tested on {'; '.join(sorted(tested))}; intervals resample whole groups of correlated images; a "
        "payload has header, CRC and one packed code, or T codes if a baseline sends it",
    )


def cost_table(runs: Sequence[RunResults]) -> Table:
    """Return multiply-accumulates and latency of each run and T."""
    conditions = [run.evaluation.latency for run in runs if run.evaluation and run.evaluation.latency]
    machines = sorted({f"{each.device}, {each.threads} threads, {each.rounds} rounds" for each in conditions})
    reasons = dict.fromkeys(reason for each in conditions for reason in each.unreliable_reasons)
    measured = f"; latency: one image per call in PyTorch on {'; '.join(machines)}" if machines else ""
    return Table.of(
        "Compute cost",
        _rows(runs),
        [
            ("run", lambda row: row.run),
            ("T", lambda row: row.label),
            ("encoder MMAC", lambda row: _millions(row.entry.encoder_macs)),
            ("classifier MMAC", lambda row: _millions(row.entry.classifier_macs)),
            ("p50 ms", lambda row: number(row.entry.latency_ms_p50, 2)),
            ("95 % interval", lambda row: interval_text(row.entry.latency_ms_p50_interval, 2)),
        ],
        note="MMAC: million multiply-accumulates of one image, without repeated work; the classifier of a "
        f"baseline includes its decoder{measured}; ccr-deploy benchmark measures engines",
        warning=f"unreliable latencies: {'; '.join(reasons)}" if reasons else "",
    )


def paper_table(runs: Sequence[RunResults]) -> Table:
    """Return parameters and accuracy of each run with a trained T beside the paper's model of that cut."""
    return Table.of(
        "Beside the paper's Table 1",
        [row for row in _rows(runs) if row.entry.is_trained],
        [
            ("run", lambda row: row.run),
            ("T", lambda row: row.label),
            ("paper's model", lambda row: _paper_row(row.evaluation.config).model),
            ("parameters", lambda row: f"{row.evaluation.parameters:,}"),
            ("paper's", lambda row: f"{_paper_row(row.evaluation.config).parameters:,}"),
            ("top-1 %", lambda row: number(row.entry.top1_percent, 1)),
            ("paper's", lambda row: number(_paper_row(row.evaluation.config).top1_percent, 2)),
        ],
        note=" ".join(
            [
                "The paper's accuracies are those of ImageNet-100, each of one training, without intervals.",
                *dict.fromkeys(_comparability(run.name, run.evaluation) for run in runs if run.evaluation),
            ]
        ),
    )


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the differences of accuracies, paired by image."""
    return Table.of(
        "Differences of top-1, paired by image",
        comparisons,
        [
            ("first", lambda entry: entry.first),
            ("second", lambda entry: entry.second),
            ("T", lambda entry: str(entry.iterations)),
            ("first %", lambda entry: number(entry.first_top1_percent, 1)),
            ("second %", lambda entry: number(entry.second_top1_percent, 1)),
            ("difference", lambda entry: number(entry.difference_points, 2)),
            ("95 % interval", lambda entry: interval_text(entry.difference_interval_points, 2)),
            ("of each pair", lambda entry: ", ".join(f"{d:+.1f}" for d in entry.pair_differences_points)),
        ],
        note="difference: first minus second, in percentage points, over the images of all pairs; its interval "
        "is for other test images: the differences of the pairs show the chance of a training",
    )


def restoration_table(name: str, restoration: Restoration) -> Table:
    """Return the quality of the restored images after each iteration of a run."""

    def sent_bytes(entry: IterationQuality) -> int:
        return entry.iteration * restoration.code_bytes

    pixels = restoration.image_height * restoration.image_width
    return Table.of(
        f"Restored images: {name}",
        restoration.per_iteration,
        [
            ("t", lambda entry: str(entry.iteration)),
            ("bytes of codes", lambda entry: f"{sent_bytes(entry):,}"),
            ("bits per pixel", lambda entry: number(8 * sent_bytes(entry) / pixels, 3)),
            ("L1", lambda entry: number(entry.l1, 4)),
            ("PSNR dB", lambda entry: number(entry.psnr_db, 2)),
            ("MS-SSIM", lambda entry: number(entry.ms_ssim, 4)),
        ],
        note=f"{restoration.data}: means over {restoration.images:,} images of {restoration.image_height}x"
        f"{restoration.image_width}; MS-SSIM with {restoration.ms_ssim_scales} scales; t codes are sent after "
        "t iterations",
    )


def _rows(runs: Sequence[RunResults]) -> list[_Row]:
    return [
        _Row(run.name, run.evaluation, entry)
        for run in runs
        if run.evaluation
        for entry in run.evaluation.per_iteration
    ]


def _paper_row(config: ModelConfig) -> PaperRow:
    return PAPER_TABLE_1["ccr-baseline" if config.is_baseline else f"ccr-{config.classifier.cut}"]


def _comparability(name: str, evaluation: Evaluation) -> str:
    """Return a sentence that says what differs from the paper's training."""
    config, paper = evaluation.config, PRESETS[_paper_row(evaluation.config).model]
    classes = config.classifier.classes
    found = [
        *(["smaller or larger layers"] if _widths(config) != _widths(paper) else []),
        *([f"{classes} classes instead of {_PAPER_CLASSES}"] if classes != _PAPER_CLASSES else []),
    ]
    if found:
        differences = " and ".join(found)
        return f"{name} has {differences}: its accuracy is not comparable with the paper's."
    return f"{name} is comparable only if {evaluation.data} is ImageNet-100 with the paper's classes."


def _widths(config: ModelConfig) -> object:
    return config.encoder, config.decoder, config.classifier.stage_channels


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.1f}"
