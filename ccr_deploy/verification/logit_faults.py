"""Faults of a classifier that can be recognised by its logits, and of the class names by its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.verification.code_faults import EXPLAINED, Explanation, bit_orders
from ccr_deploy.verification.measures import NO_ANSWER
from ccr_deploy.verification.results import REFERENCE, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.verification.answers import Bytes, Floats
    from ccr_deploy.verification.measures import Ints

    Shape = tuple[int, int, int]

FEWEST_IMAGES = 4
"""Labelled images of a class from which its most frequent answer is considered."""
MOST = 0.5
"""The share of a class's images that must have the same answer."""


def explain_logits(
    codes: Bytes, found: Floats, expected: Floats, shape: Shape, classify: Callable[[Bytes], Floats]
) -> Explanation | None:
    """Return what explains that a classifier's logits differ from those of the step before.

    Args:
        codes: the codes that both read, ``uint8 [N, bytes]``.
        found: the logits that differ, ``float32 [N, classes]``.
        expected: those of the step before.
        shape: channels, rows and columns of a code.
        classify: the classifier whose logits differ.

    Returns:
        The hypothesis that leaves the smallest difference; None if none explains it.
    """
    if not np.isfinite(found).all():
        if not np.isfinite(expected).all():
            return None
        values = int((~np.isfinite(found)).sum())
        return Explanation("non-finite", f"{values} of {found.size} logits are NaN or infinite", 0.0)
    observed = _difference(found, expected)
    if observed == 0:  # as in `explain_codes`
        return None
    candidates = [*_class_order(found, expected), *_bit_order(codes, expected, shape, classify)]
    best = min(candidates, key=lambda explanation: explanation.remaining, default=None)
    if best is None or best.remaining > EXPLAINED * observed:
        return None
    remaining = (
        f"logits differ from that by {100 * best.remaining:.3g} %, by {100 * observed:.3g} % otherwise"
    )
    return Explanation(best.cause, f"{best.evidence}: {remaining}", best.remaining)


def shuffled_classes(
    answers: Ints, labels: Sequence[int | None], class_name: Callable[[int], str]
) -> Finding | None:
    """Return a finding if the names of classes are mixed up: images of one class are answered as another.

    A network that confuses two classes answers one for both. Here, most images of each class have one answer,
    and different classes different ones; but the answers are not the classes.

    Args:
        answers: the class that the reference gives each image, ``int [N]``.
        labels: the class of each image; None if it has no label.
        class_name: returns the name of a class.
    """
    moved = _moved_classes(answers, labels)
    if len(moved) < 2 or not (_has_cycle(moved) or 2 * len(moved) >= len(set(labels) - {None})):
        return None
    examples = [f"{class_name(label)} as {class_name(answer)}" for label, answer in list(moved.items())[:3]]
    return Finding(
        step=REFERENCE,
        stage="class names",
        cause="shuffled-classes",
        evidence=f"most images of {len(moved)} classes are answered as another class, each a different one: "
        + ", ".join(examples),
    )


def _moved_classes(answers: Ints, labels: Sequence[int | None]) -> Mapping[int, int]:
    """Return the usual answer of each class, if it is another class, and no other class has that answer."""
    known = np.array([NO_ANSWER if label is None else label for label in labels])
    usual: dict[int, int] = {}
    for label in sorted(set(labels) - {None}, key=int):  # type: ignore[arg-type]  # None is removed
        of_class = answers[known == label]
        values, counts = np.unique(of_class[of_class != NO_ANSWER], return_counts=True)
        if len(of_class) >= FEWEST_IMAGES and len(counts) and counts.max() > MOST * len(of_class):
            usual[int(label)] = int(values[counts.argmax()])  # type: ignore[arg-type]
    given = list(usual.values())
    return {label: answer for label, answer in usual.items() if label != answer and given.count(answer) == 1}


def _has_cycle(moved: Mapping[int, int]) -> bool:
    for first in moved:
        label = first
        for _ in moved:
            label = moved.get(label, NO_ANSWER)
            if label == first:
                return True
    return False


def _class_order(found: Floats, expected: Floats) -> Iterator[Explanation]:
    distances = ((found[:, :, None].astype(np.float64) - expected[:, None, :]) ** 2).sum(axis=0)
    own = np.diagonal(distances)
    order = np.where(distances.min(axis=1) < own, distances.argmin(axis=1), np.arange(len(own)))
    moved = np.flatnonzero(order != np.arange(len(order)))
    if len(moved) and len(set(order.tolist())) == len(order):
        undone = np.empty_like(found)
        undone[:, order] = found
        evidence = f"{len(moved)} of {len(order)} classes have the logits of another class"
        yield Explanation("shuffled-classes", evidence, _difference(undone, expected))


def _bit_order(
    codes: Bytes, expected: Floats, shape: Shape, classify: Callable[[Bytes], Floats]
) -> Iterator[Explanation]:
    for name, (reorder, _) in bit_orders(shape).items():
        yield Explanation("bit-order", f"it reads {name}", _difference(classify(reorder(codes)), expected))


def _difference(found: Floats, expected: Floats) -> float:
    """Return ``|found - expected| / |expected|`` in the Euclidean norm."""
    others: npt.NDArray[np.float64] = expected.astype(np.float64)
    return float(np.linalg.norm(found - others) / (np.linalg.norm(others) or 1.0))
