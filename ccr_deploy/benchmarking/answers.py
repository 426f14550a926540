"""Answers of timed runs: grouped in the process that runs them, compared with the reference by its owner."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.results import AnswerCheck
from ccr_deploy.core.metrics import cosine_similarities, flipped_bits
from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy.typing as npt

    Array = npt.NDArray[np.generic]
    Pairs = Sequence[tuple[tuple[Array, ...], tuple[Array, ...]]]
    """Outputs of one item, and those that they are compared with."""


class Output(Record, frozen=True):
    """One output array of an engine in a message."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes

    def array(self) -> Array:
        """Return the array."""
        return np.frombuffer(self.content, self.dtype).reshape(self.shape)


class Answer(Record, frozen=True):
    """Equal outputs of some runs of one input: an array for each engine, in the order in which they run.

    `items` are the numbers of the input's items, one for each row of the arrays.
    """

    items: tuple[int, ...]
    runs: int
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Expected:
    """The reference's outputs for all items, one array for each engine, and the limits of the differences.

    A code is ``uint8 [N, bytes]``, logits are ``float [N, classes]``. `outputs` is None without a reference:
    each answer is compared with the first one for the same item only. A limit is None if the precision has
    none.
    """

    outputs: tuple[Array, ...] | None
    max_flipped_percent: float | None
    min_cosine: float | None


def grouped(runs: Iterable[tuple[Sequence[int], Sequence[Array]]]) -> tuple[Answer, ...]:
    """Return the different answers of runs, with the number of runs of each.

    Args:
        runs: for each run, the numbers of its input's items, and the output array of each engine.
    """
    return counted(
        Answer(
            tuple(items),
            1,
            tuple(Output(str(array.dtype), array.shape, array.tobytes()) for array in arrays),
        )
        for items, arrays in runs
    )


def one_by_one(
    items: Sequence[int], outputs: Sequence[Array]
) -> Iterator[tuple[tuple[int], tuple[Array, ...]]]:
    """Yield the items of a run as if each had been a run of its own: other batches may have equal items.

    Args:
        items: the numbers of the input's items.
        outputs: the output array of each engine, with a row for each item.
    """
    for row, item in enumerate(items):
        yield (item,), tuple(array[row : row + 1] for array in outputs)


def counted(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """Return equal answers as one, with the sum of their runs, in the order of their first runs."""
    runs: dict[tuple[tuple[int, ...], tuple[Output, ...]], int] = defaultdict(int)
    for answer in answers:
        runs[answer.items, answer.outputs] += answer.runs
    return tuple(Answer(items, count, outputs) for (items, outputs), count in runs.items())


def check_answers(answers: Sequence[Answer], expected: Expected) -> AnswerCheck:
    """Compare the answers of all runs with the reference's, if there is one, and with each other.

    Logits are compared for items whose code equals the reference's: other codes may have other logits. The
    share of flipped bits is that of all images, each with its worst answer: so a wrong answer counts no less
    if other runs of the same image were right. The share relative to the first answers, from which an engine
    hardly differs, is that of the worst image: many images that do not vary do not hide it.

    Args:
        answers: answers of all runs, in the order of the first run of each.
        expected: the reference's, and the limits.
    """
    rows = [row for answer in answers for row in _rows(answer)]
    firsts: dict[int, tuple[Array, ...]] = {}
    for item, outputs in rows:
        firsts.setdefault(item, outputs)
    items = [item for item, _ in rows]
    flipped = cosine = None
    if reference := expected.outputs:
        pairs = _pairs(rows, lambda item: tuple(array[item] for array in reference))
        flips = _flipped_percents(pairs, items)
        flipped, cosine = float(np.mean(flips)) if flips else None, _min_cosine(pairs)
    repeats = _pairs(rows, firsts.__getitem__)
    repeats_flipped = max(_flipped_percents(repeats, items), default=None)
    repeats_cosine = _min_cosine(repeats)
    return AnswerCheck(
        runs=sum(answer.runs for answer in answers),
        images=len(firsts),
        varying_images=len({item for item, outputs in rows if not _are_equal(outputs, firsts[item])}),
        flipped_percent=flipped,
        min_cosine=cosine,
        repeats_flipped_percent=repeats_flipped,
        repeats_min_cosine=repeats_cosine,
        max_flipped_percent=expected.max_flipped_percent,
        min_cosine_limit=expected.min_cosine,
        passed=all(_is_at_most(found, expected.max_flipped_percent) for found in (flipped, repeats_flipped))
        and all(_is_at_least(found, expected.min_cosine) for found in (cosine, repeats_cosine)),
    )


def wrong_answers(name: str, check: AnswerCheck) -> str:
    """Return why the answers of a candidate did not pass, as one line.

    Args:
        name: name of the candidate, with what it was timed for.
        check: the comparison.
    """
    parts = []
    for reference, bits, flipped, cosine in (
        ("PyTorch's", "bits", check.flipped_percent, check.min_cosine),
        (
            "its own first ones",
            "bits of an image",
            check.repeats_flipped_percent,
            check.repeats_min_cosine,
        ),
    ):
        if not _is_at_most(flipped, check.max_flipped_percent):
            limit = check.max_flipped_percent
            parts.append(f"{flipped:.3g} % of the {bits} differ from {reference} (limit {limit:g} %)")
        if not _is_at_least(cosine, check.min_cosine_limit):
            limit = check.min_cosine_limit
            parts.append(f"the cosine of its logits with {reference} is {cosine:.6f} (limit {limit:g})")
    return f"{name}: wrong answers while it was timed: {', '.join(parts)}: run ccr-deploy verify"


def _rows(answer: Answer) -> Iterator[tuple[int, tuple[Array, ...]]]:
    """Yield the outputs of each item of a batch, with the item's number."""
    arrays = [output.array() for output in answer.outputs]
    for row, item in enumerate(answer.items):
        yield item, tuple(array[row] for array in arrays)


def _pairs(
    rows: Sequence[tuple[int, tuple[Array, ...]]], wanted: Callable[[int], tuple[Array, ...]]
) -> Pairs:
    """Return the outputs of each answer with those that they are compared with.

    Args:
        rows: the outputs of each answer, with the number of its item.
        wanted: returns the outputs that the answers for an item are compared with.
    """
    return [(outputs, wanted(item)) for item, outputs in rows]


def _flipped_percents(pairs: Pairs, items: Iterable[int]) -> list[float]:
    """Return the share of the code's bits that differ in the worst answer of each item; none without codes.

    Args:
        pairs: the answers and what they are compared with.
        items: the item of each pair.
    """
    worst: dict[int, float] = {}
    for item, (one, other) in zip(items, pairs, strict=True):
        for found, wanted in zip(one, other, strict=True):
            if wanted.dtype == np.uint8:
                flipped = flipped_bits(found.astype(np.uint8)[None], wanted.astype(np.uint8)[None])
                worst[item] = max(worst.get(item, 0.0), float(100 * flipped.mean()))
    return list(worst.values())


def _min_cosine(pairs: Pairs) -> float | None:
    """Return the lowest cosine similarity of logits whose codes are equal; None without such logits."""
    logits = [
        (found, wanted)
        for one, other in pairs
        if _are_equal(one[:-1], other[:-1])
        for found, wanted in zip(one[-1:], other[-1:], strict=True)
        if wanted.dtype != np.uint8
    ]
    if not logits:
        return None
    found, wanted = (np.stack(side).astype(np.float64) for side in zip(*logits, strict=True))
    return float(cosine_similarities(found, wanted).min())


def _are_equal(one: Sequence[Array], other: Sequence[Array]) -> bool:
    return all(np.array_equal(first, second) for first, second in zip(one, other, strict=True))


def _is_at_most(found: float | None, limit: float | None) -> bool:
    return found is None or limit is None or found <= limit


def _is_at_least(found: float | None, limit: float | None) -> bool:
    return found is None or limit is None or found >= limit
