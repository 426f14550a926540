"""Parity, accuracy and NaN of a whole image set, from its measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

import numpy as np

from ccr_deploy.core.metrics import Interval, grouped_bootstrap_interval, mcnemar_p_value
from ccr_deploy.verification.measures import MARGIN_EDGES, NO_ANSWER
from ccr_deploy.verification.results import (
    REFERENCE,
    AccuracyChange,
    ChainAccuracy,
    CodeParity,
    Level,
    LogitParity,
    MarginCount,
    MatrixCell,
    NonFinite,
    Output,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ccr_deploy.verification.measures import (
        CodeMeasures,
        Comparison,
        Ints,
        LogitMeasures,
        Measures,
    )
    from ccr_deploy.verification.results import LogitStage


def code_parity(pair: Comparison, measures: CodeMeasures) -> CodeParity:
    """Return the parity of the codes of two ways."""
    flips, margins, flipped_margins = measures.flips, measures.margins, measures.flipped_margins
    return CodeParity(
        level=cast("Level", pair.level),
        against=pair.against,
        images=len(flips),
        bits=int(measures.bits),
        flipped_bits=int(flips.sum()),
        unexplained_flips=int(measures.unexplained_flips.sum()),
        far_flips=int(measures.far_flips.sum()),
        equal_payloads=int((flips == 0).sum()),
        channel_flips=tuple(measures.channel_flips.tolist()),
        channel_ones=tuple(measures.channel_ones.tolist()),
        margins=tuple(map(MarginCount, (0.0, *MARGIN_EDGES), margins.tolist(), flipped_margins.tolist())),
        median_margin=_median(margins),
        median_flipped_margin=_median(flipped_margins),
    )


def _median(histogram: Ints) -> float | None:
    """Return the median of a histogram: the geometric mean of the edges of the bar that holds it."""
    if not histogram.any():
        return None
    bar = int(np.searchsorted(np.cumsum(histogram), histogram.sum() / 2))
    low = MARGIN_EDGES[max(bar - 1, 0)]
    high = MARGIN_EDGES[min(bar, len(MARGIN_EDGES) - 1)]
    return float(np.sqrt(low * high))


def logit_parity(stage: LogitStage, pair: Comparison, measures: LogitMeasures) -> LogitParity:
    """Return the parity of the logits of two ways.

    Args:
        stage: source of the logits.
        pair: the two ways.
        measures: measurements of the images.
    """
    return LogitParity(
        stage=stage,
        level=cast("Level", pair.level),
        against=pair.against,
        images=len(measures.cosine),
        max_difference=float(measures.max_difference.max()),
        mean_difference=float(measures.mean_difference.mean()),
        min_cosine=float(measures.cosine.min()),
        mean_kl_divergence=float(measures.kl_divergence.mean()),
        max_kl_divergence=float(measures.kl_divergence.max()),
        same_top1=int(measures.same_top1.sum()),
        same_top5_percent=100 * float(measures.top5_overlap.mean()),
    )


def chain_accuracies(
    measures: Measures, labels: Sequence[int | None], groups: Sequence[str]
) -> tuple[tuple[ChainAccuracy, ...], tuple[AccuracyChange, ...]]:
    """Return the accuracy of each way, and its changes from the reference; nothing if no image has a label.

    Args:
        measures: measurements of the images.
        labels: the class of each image, None if it has no label.
        groups: the group of each image; intervals are bootstrapped over groups.
    """
    labelled, known, members = _labelled(labels, groups)
    if not members:
        return (), ()
    right = {way: found.top1[labelled] == known for way, found in measures.answers.items()}
    accuracies, changes = [], []
    for way, found in measures.answers.items():
        top1, top1_interval = _mean_percent(right[way], members)
        top5, top5_interval = _mean_percent(found.is_in_top5[labelled], members)
        accuracies.append(
            ChainAccuracy(way, len(known), len(set(members)), top1, top1_interval, top5, top5_interval)
        )
        if way != REFERENCE:
            lost, gained = right[REFERENCE] & ~right[way], right[way] & ~right[REFERENCE]
            # The difference per image, so that the bootstrap resamples both ways together.
            loss, loss_interval = _mean_percent(lost.astype(np.int64) - gained, members)
            counts = int(lost.sum()), int(gained.sum())
            changes.append(
                AccuracyChange(way, len(known), *counts, mcnemar_p_value(*counts), loss, loss_interval)
            )
    return tuple(accuracies), tuple(changes)


def matrix_cells(
    measures: Measures, labels: Sequence[int | None], groups: Sequence[str]
) -> tuple[MatrixCell, ...]:
    """Return the accuracy of every encoder precision with every classifier precision.

    Args:
        measures: measurements of the images.
        labels: the class of each image, None if it has no label.
        groups: the group of each image; intervals are bootstrapped over groups.
    """
    labelled, known, members = _labelled(labels, groups)
    reference = measures.answers[REFERENCE].top1
    cells = []
    for (encoder, classifier), found in measures.matrix.items():
        top1 = loss = loss_interval = None
        if members:
            right = found.top1[labelled] == known
            top1 = 100 * float(right.mean())
            lost = (reference[labelled] == known).astype(np.int64) - right
            loss, loss_interval = _mean_percent(lost, members)
        same = int(((found.top1 == reference) & (reference != NO_ANSWER)).sum())
        cells.append(MatrixCell(encoder, classifier, len(reference), same, top1, loss, loss_interval))
    return tuple(cells)


def _labelled(
    labels: Sequence[int | None], groups: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], Ints, list[str]]:
    """Return which images have labels, and the labels and groups of those."""
    labelled = np.array([label is not None for label in labels])
    known = np.array([label for label in labels if label is not None], dtype=np.int64)
    members = [group for group, has_label in zip(groups, labelled, strict=True) if has_label]
    return labelled, known, members


def _mean_percent(values: npt.NDArray[np.generic], groups: Sequence[str]) -> tuple[float, Interval]:
    interval = grouped_bootstrap_interval(values, groups)
    return 100 * float(values.astype(np.float64).mean()), Interval(100 * interval.low, 100 * interval.high)


def non_finite_values(measures: Measures, names: Sequence[str]) -> tuple[NonFinite, ...]:
    """Return where NaN or infinity was found; nothing if all values are finite.

    Args:
        measures: measurements of the images.
        names: the name of each image.
    """
    found = []
    for way, answers in measures.answers.items():
        for output in cast("tuple[Output, ...]", get_args(Output)):
            values: Ints = getattr(answers, output)
            if values.any():
                first = names[int((values > 0).argmax())]
                found.append(NonFinite(way, output, int(values.sum()), int((values > 0).sum()), first))
    return tuple(found)
