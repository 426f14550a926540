"""Tables of the report on trainings, and what in them is comparable with the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.paper import PAPER_TABLE_1
from ccr_deploy.models.presets import PRESETS
from ccr_deploy.reporting.table import Table, interval_text, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        return f"{self.entry.iterations}" if self.entry.is_trained else f"{self.entry.iterations}*"


def report_tables(report: TrainingReport) -> list[Table]:
    """Return all tables of a report, in their order."""
    restorations = [restoration_table(run.name, run.restoration) for run in report.runs if run.restoration]
    return [*result_tables(report), *restorations]


def result_tables(report: TrainingReport) -> list[Table]:
    """Return the tables of accuracy and cost, none if no checkpoint was evaluated."""
    found = []
    if _rows(report.runs):
        found += [accuracy_table(report.runs), paper_table(report.runs), cost_table(report.runs)]
    if report.comparisons:
        found.append(comparison_table(report.comparisons))
    return found


def accuracy_table(runs: Sequence[RunResults]) -> Table:
    """Return accuracy, payload bytes and parameters of each run and T."""
    rows = _rows(runs)
    tested = {
        f"{each.data}: {each.images:,} images in {each.groups:,} groups, "
        f"{each.config.classifier.classes} classes"
        for each in (row.evaluation for row in rows)
    }
    untrained = [] if all(row.entry.is_trained for row in rows) else ["*: not trained with this T"]
    return Table.of(
        "Accuracy and payload",
        rows,
        [
            ("run", lambda row: row.run),
            ("T", lambda row: row.label),
            ("top-1 %", lambda row: number(row.entry.top1_percent, 1)),
            ("interval", lambda row: interval_text(row.entry.top1_interval_percent, 1)),
            ("top-5 %", lambda row: number(row.entry.top5_percent, 1)),
            ("bytes", lambda row: f"{row.entry.payload_bytes:,}"),
            ("parameters", lambda row: f"{row.evaluation.parameters:,}"),
        ],
        note="; ".join(
            [
                f"tested on {', '.join(sorted(tested))}",
                "intervals: 95 %, resampling whole groups of correlated images",
                "bytes: of a payload with header, CRC and one packed code, or T codes of a baseline",
                *untrained,
            ]
        ),
    )


def cost_table(runs: Sequence[RunResults]) -> Table:
    """Return multiply-accumulates and latency of each run and T."""
    conditions = [run.evaluation.latency for run in runs if run.evaluation and run.evaluation.latency]
    machines = sorted(
        {f"{each.device} with {each.threads} thread{'s' * (each.threads > 1)}" for each in conditions}
    )
    reasons = dict.fromkeys(reason for each in conditions for reason in each.unreliable_reasons)
    measured = (
        f"; p50: one image per call in PyTorch on {', '.join(machines)}, 95 % interval" if machines else ""
    )
    return Table.of(
        "Compute cost",
        _rows(runs),
        [
            ("run", lambda row: row.run),
            ("T", lambda row: row.label),
            ("encoder MMAC", lambda row: _millions(row.entry.encoder_macs)),
            ("classifier MMAC", lambda row: _millions(row.entry.classifier_macs)),
            ("p50 ms", lambda row: number(row.entry.latency_ms_p50, 2)),
            ("interval", lambda row: interval_text(row.entry.latency_ms_p50_interval, 2)),
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
            ("cut", lambda row: row.evaluation.config.classifier.cut or "baseline"),
            ("parameters", lambda row: f"{row.evaluation.parameters:,}"),
            ("paper's", lambda row: f"{_paper_row(row.evaluation.config).parameters:,}"),
            ("top-1 %", lambda row: number(row.entry.top1_percent, 1)),
            ("paper's", lambda row: number(_paper_row(row.evaluation.config).top1_percent, 2)),
        ],
        note=" ".join(
            (
                "The paper's accuracies are of ImageNet-100, each of one training, without an interval.",
                *_comparability(runs),
            )
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
            ("top-1 %", lambda entry: number(entry.first_top1_percent, 1)),
            ("points", lambda entry: number(entry.difference_points, 2)),
            ("interval", lambda entry: interval_text(entry.difference_interval_points, 2)),
            ("of each pair", lambda entry: ", ".join(f"{d:+.1f}" for d in entry.pair_differences_points)),
        ],
        note="top-1: of the first; points: first minus second, in percentage points, over the images of all "
        "pairs; their 95 % interval is for other test images; the differences of the pairs show how much "
        "trainings vary",
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
        f"{restoration.image_width}; MS-SSIM with {restoration.ms_ssim_scales} scales; after t iterations, "
        "t codes are sent",
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


def _comparability(runs: Sequence[RunResults]) -> Iterator[str]:
    """Yield what differs from the paper's trainings, and which runs it concerns."""
    names: dict[str, list[str]] = {}
    for run in runs:
        if run.evaluation:
            names.setdefault(_difference(run.evaluation), []).append(run.name)
    for difference, concerned in names.items():
        yield f"{', '.join(concerned)}: {difference}."


def _difference(evaluation: Evaluation) -> str:
    config, paper = evaluation.config, PRESETS[_paper_row(evaluation.config).model]
    classes = config.classifier.classes
    found = [
        *(["layers of other widths"] if _widths(config) != _widths(paper) else []),
        *([f"{classes} classes instead of {_PAPER_CLASSES}"] if classes != _PAPER_CLASSES else []),
    ]
    if found:
        return f"{' and '.join(found)}, so the accuracy is not comparable with the paper's"
    return f"comparable if {evaluation.data} is ImageNet-100 with the classes of the paper"


def _widths(config: ModelConfig) -> object:
    return config.encoder, config.decoder, config.classifier.stage_channels


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.1f}"
