"""Measurements of single batches, which are joined to those of a whole image set.

A set of 50,000 images does not fit in memory as codes, activations and logits. So each batch is reduced to a
few numbers per image, and to counts over its bits. Numbers per image are kept in the order of the images and
averaged at the end: the result is the same, to the last digit, however the batches were divided among runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ccr_deploy.core.metrics import (
    cosine_similarities,
    flipped_bits,
    kl_divergences,
    softmax,
    top_k_classes,
)
from ccr_deploy.verification.results import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ccr_deploy.verification.answers import Answers, BatchAnswers, Precisions
    from ccr_deploy.verification.results import LogitStage, Way

TIE_MARGIN = 1e-5
"""Rounding explains the flip of a bit if its margin is at most this far from 0."""

FAR_MARGIN = 0.5
"""A flipped bit is far from 0 if its margin is further: rounding in no precision reaches there."""

MARGIN_EDGES = tuple(10.0 ** (quarter / 4) for quarter in range(-20, 5))
"""Edges of the histogram of margins, four per decade: below 1e-5, 1e-5 to 1.8e-5, ..., over 10."""

TOP_K = 5
NO_ANSWER = -1
"""The class of an image whose logits are NaN or infinite."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TOTALS = frozenset({"bits", "channel_flips", "channel_ones", "margins", "flipped_margins"})
"""Measurements that are counts over all images; all others have a value for each image."""


class Comparison(NamedTuple):
    """A way to run the chain, and the way that it is compared with."""

    level: Way
    against: Way


def comparisons(ways: Sequence[Way]) -> list[Comparison]:
    """Return each way against the first, then against the one before it.

    Args:
        ways: the reference, and the others in the order in which they are made from each other.
    """
    first, *others = ways
    with_first = [Comparison(way, first) for way in others]
    with_previous = [Comparison(way, before) for before, way in pairwise(others)]
    return [*with_first, *with_previous]


@dataclass(frozen=True)
class CodeMeasures:
    """Codes of one way compared with those of another, for N images.

    `flips`, `unexplained_flips` and `far_flips` are bits of each image ``int [N]``, `bits` counts all bits.
    `channel_flips` and `channel_ones` count flips, and ones of the first way, per code channel ``int [C]``.
    `margins` and `flipped_margins` are histograms of the sizes of all margins and of those of the flipped
    bits, by `MARGIN_EDGES`.
    """

    flips: Ints
    unexplained_flips: Ints
    far_flips: Ints
    bits: Ints
    channel_flips: Ints
    channel_ones: Ints
    margins: Ints
    flipped_margins: Ints


@dataclass(frozen=True)
class LogitMeasures:
    """Logits of one way compared with those of another, ``[N]`` each.

    `top5_overlap` is the share of the other's five most probable classes that are among the first's five.
    """

    max_difference: Floats
    mean_difference: Floats
    cosine: Floats
    kl_divergence: Floats
    same_top1: Ints
    top5_overlap: Floats


@dataclass(frozen=True)
class AnswerMeasures:
    """Answers of one way, ``[N]`` each.

    `top1` is a class, or `NO_ANSWER`. `is_in_top5` is 1 if the label is among the five most probable classes.
    The other fields count the values that are NaN or infinite; `activations` are those of the reference.
    """

    top1: Ints
    probability: Floats
    is_in_top5: Ints
    activations: Ints
    classifier: Ints
    chain: Ints
    baseline: Ints


@dataclass(frozen=True)
class MatrixMeasures:
    """Classes ``[N]`` that an encoder and a classifier of given precisions return together."""

    top1: Ints


@dataclass(frozen=True)
class Measures:
    """All measurements of N images, in the order of the image set."""

    codes: Mapping[Comparison, CodeMeasures]
    logits: Mapping[tuple[LogitStage, Comparison], LogitMeasures]
    answers: Mapping[Way, AnswerMeasures]
    matrix: Mapping[Precisions, MatrixMeasures]


def measure(batch: BatchAnswers, labels: Sequence[int | None], channels: int) -> Measures:
    """Measure one batch.

    Args:
        batch: outputs of the reference and of the other ways, in the order of `comparisons`.
        labels: the class of each image, None if it has no label.
        channels: channels of the code.
    """
    answers = batch.answers
    pairs = comparisons(list(answers))
    return Measures(
        codes={
            pair: _compare_codes(answers[pair.level], answers[pair.against], batch.margins, channels)
            for pair in pairs
        },
        logits={
            (stage, pair): _compare_logits(
                answers[pair.level].logits[stage], answers[pair.against].logits[stage]
            )
            for pair in pairs
            for stage in answers[REFERENCE].logits
        },
        answers={
            way: _measure_answers(found, batch.margins if way == REFERENCE else None, labels)
            for way, found in answers.items()
        },
        matrix={key: MatrixMeasures(top1_classes(logits)) for key, logits in batch.matrix.items()},
    )


def _compare_codes(
    answers: Answers, others: Answers, margins: npt.NDArray[np.float32], channels: int
) -> CodeMeasures:
    flips = flipped_bits(others.codes, answers.codes)
    sizes = np.abs(margins)
    ones = np.unpackbits(answers.codes, axis=1)
    return CodeMeasures(
        flips=flips.sum(axis=1),
        # Negated, so that flips with a margin of NaN count.
        unexplained_flips=(flips & ~(sizes <= TIE_MARGIN)).sum(axis=1),
        far_flips=(flips & ~(sizes <= FAR_MARGIN)).sum(axis=1),
        bits=np.asarray(flips.size),
        channel_flips=flips.reshape(len(flips), channels, -1).sum(axis=(0, 2)),
        channel_ones=ones.reshape(len(ones), channels, -1).sum(axis=(0, 2), dtype=np.int64),
        margins=_histogram(sizes),
        flipped_margins=_histogram(sizes[flips]),
    )


def _histogram(sizes: npt.NDArray[np.float32]) -> Ints:
    known = sizes[np.isfinite(sizes)]
    return np.bincount(np.searchsorted(MARGIN_EDGES, known, side="right"), minlength=len(MARGIN_EDGES) + 1)


def _compare_logits(logits: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> LogitMeasures:
    top, other_top = top_k_classes(logits, TOP_K), top_k_classes(others, TOP_K)
    found, expected = top1_classes(logits), top1_classes(others)
    with np.errstate(invalid="ignore"):  # NaN and infinity give NaN, which no gate accepts
        differences = np.abs(logits.astype(np.float64) - others)
        return LogitMeasures(
            max_difference=differences.max(axis=1),
            mean_difference=differences.mean(axis=1),
            cosine=cosine_similarities(others, logits).astype(np.float64),
            kl_divergence=kl_divergences(others, logits).astype(np.float64),
            same_top1=((found == expected) & (found != NO_ANSWER)).astype(np.int64),
            top5_overlap=(top[:, :, None] == other_top[:, None, :]).any(axis=1).mean(axis=1),
        )


def top1_classes(logits: npt.NDArray[np.float32]) -> Ints:
    """Return the class of each row's largest logit ``[N, classes]``; `NO_ANSWER` if one is not finite."""
    return np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), NO_ANSWER).astype(np.int64)


def _measure_answers(
    answers: Answers, margins: npt.NDArray[np.float32] | None, labels: Sequence[int | None]
) -> AnswerMeasures:
    chain = answers.logits["chain"]
    known = np.array([NO_ANSWER if label is None else label for label in labels], dtype=np.int64)
    top1 = top1_classes(chain)
    with np.errstate(invalid="ignore"):
        probabilities = softmax(chain.astype(np.float64)).max(axis=1)
    is_in_top5 = (top_k_classes(chain, TOP_K) == known[:, None]).any(axis=1) & (top1 != NO_ANSWER)
    return AnswerMeasures(
        top1=top1,
        probability=probabilities,
        is_in_top5=is_in_top5.astype(np.int64),
        activations=_non_finite(margins, len(chain)),
        classifier=_non_finite(answers.logits["classifier"], len(chain)),
        chain=_non_finite(chain, len(chain)),
        baseline=_non_finite(answers.logits.get("baseline"), len(chain)),
    )


def _non_finite(values: npt.NDArray[np.float32] | None, images: int) -> Ints:
    if values is None:
        return np.zeros(images, np.int64)
    return (~np.isfinite(values)).sum(axis=1)
