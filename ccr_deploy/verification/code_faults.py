"""Faults of an encoder that can be recognised by its codes, each by undoing it or by computing it on purpose.

A hypothesis explains a difference if at most half of the flipped bits remain when it is taken into account.
Rounding of a low precision remains in any case, so that not all flips can disappear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from ccr_deploy.core.metrics import flipped_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy.typing as npt

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.verification.answers import Bytes
    from ccr_deploy.verification.results import Cause

    Shape = tuple[int, int, int]

EXPLAINED = 0.5
"""The largest share of a difference that may remain if a hypothesis explains it."""
RARELY_CONSTANT = 0.02
"""A channel of the reference varies if both of its values have at least this share of its bits."""
ADDITIONAL_ITERATIONS = 2
"""Iterations beyond the bundle's T that are compared with a code."""


@dataclass(frozen=True)
class Explanation:
    """A cause that explains a difference, and the share of bits, or of logits, that it leaves different."""

    cause: Cause
    evidence: str
    remaining: float


@dataclass(frozen=True)
class CodeQuestion:
    """Codes that differ, and what computes codes under other assumptions.

    Attributes:
        images: ``uint8 [N, H, W, 3]``.
        found: the codes of the way that differs, ``uint8 [N, bytes]``.
        expected: the codes of the step before, ``uint8 [N, bytes]``.
        shape: channels, rows and columns of a code.
        encode: the encoder of the way that differs.
        iterations: the bundle's T.
        preprocessing: the bundle's.
        by_iterations: the reference's codes for T = 1, 2, … up to a number; None if there is no PyTorch.
        normalised_by: the reference's codes with another normalisation; None if there is no PyTorch.
    """

    images: Bytes
    found: Bytes
    expected: Bytes
    shape: Shape
    encode: Callable[[Bytes], Bytes]
    iterations: int
    preprocessing: Preprocessing
    by_iterations: Callable[[Bytes, int], list[Bytes]] | None = None
    normalised_by: Callable[[Bytes, Preprocessing], Bytes] | None = None


def explain_codes(question: CodeQuestion) -> Explanation | None:
    """Return the hypothesis that leaves the fewest flipped bits; None if none explains the difference."""
    observed = _share(question.found, question.expected)
    if observed == 0:  # these images do not show the difference: a remaining share of 0 proves nothing
        return None
    found = [explanation for test in _TESTS for explanation in test(question)]
    best = min(found, key=lambda explanation: explanation.remaining, default=None)
    if best is None or best.remaining > EXPLAINED * observed:
        return None
    remaining = f"{100 * best.remaining:.3g} % of the bits differ from that, {100 * observed:.3g} % otherwise"
    return Explanation(best.cause, f"{best.evidence}: {remaining}", best.remaining)


def bit_orders(shape: Shape) -> Mapping[str, tuple[Callable[[Bytes], Bytes], Callable[[Bytes], Bytes]]]:
    """Return wrong orders of the bits of a code: a function to each of them, and one back.

    Args:
        shape: channels, rows and columns of a code.
    """
    channels, rows, columns = shape

    def reversed_bytes(codes: Bytes) -> Bytes:
        return np.packbits(np.unpackbits(codes, axis=1, bitorder="little"), axis=1)

    def channels_last(codes: Bytes) -> Bytes:
        bits = np.unpackbits(codes, axis=1).reshape(-1, channels, rows, columns)
        return np.packbits(bits.transpose(0, 2, 3, 1).reshape(len(codes), -1), axis=1)

    def channels_first(codes: Bytes) -> Bytes:
        bits = np.unpackbits(codes, axis=1).reshape(-1, rows, columns, channels)
        return np.packbits(bits.transpose(0, 3, 1, 2).reshape(len(codes), -1), axis=1)

    return {
        "the bits of each byte in reverse order": (reversed_bytes, reversed_bytes),
        "bits in the order [row, column, channel]": (channels_last, channels_first),
    }


def _bit_order(question: CodeQuestion) -> Iterator[Explanation]:
    for name, (_, undo) in bit_orders(question.shape).items():
        yield Explanation("bit-order", name, _share(undo(question.found), question.expected))


def _swapped_channels(question: CodeQuestion) -> Iterator[Explanation]:
    found, expected = (_bits(codes, question.shape) for codes in (question.found, question.expected))
    order = _matching_channels(found, expected)
    moved = np.flatnonzero(order != np.arange(len(order)))
    if len(moved) and len(set(order.tolist())) == len(order):
        undone = np.empty_like(found)
        undone[:, order] = found
        yield Explanation(
            "swapped-channels",
            f"code channels {_listed(moved)} are those of {_listed(order[moved])}",
            float((undone != expected).mean()),
        )


def _dead_channels(question: CodeQuestion) -> Iterator[Explanation]:
    found, expected = (_bits(codes, question.shape) for codes in (question.found, question.expected))
    ones = expected.mean(axis=(0, 2))
    varies = (ones >= RARELY_CONSTANT) & (ones <= 1 - RARELY_CONSTANT)
    is_constant = (found == found[:1, :, :1]).all(axis=(0, 2))
    dead = np.flatnonzero(varies & is_constant)
    if len(dead):
        flips = found != expected
        flips[:, dead] = False
        values = _listed(found[0, dead, 0])
        yield Explanation(
            "dead-channel",
            f"code channels {_listed(dead)} always have the bits {values}",
            float(flips.mean()),
        )


def _channel_order(question: CodeQuestion) -> Iterator[Explanation]:
    # The encoder that differs reads the reversed images: this needs no reference that reads them.
    reversed_codes = question.encode(np.ascontiguousarray(question.images[..., ::-1]))
    yield Explanation(
        "bgr", "given BGR images, it returns the codes of RGB", _share(reversed_codes, question.expected)
    )


def _iterations(question: CodeQuestion) -> Iterator[Explanation]:
    if question.by_iterations:
        up_to = question.iterations + ADDITIONAL_ITERATIONS
        for t, codes in enumerate(question.by_iterations(question.images, up_to), start=1):
            if t != question.iterations:
                evidence = f"its codes are PyTorch's for T = {t} instead of {question.iterations}"
                yield Explanation("iterations", evidence, _share(question.found, codes))


def _normalisation(question: CodeQuestion) -> Iterator[Explanation]:
    if question.normalised_by:
        for other in normalisations(question.preprocessing):
            codes = question.normalised_by(question.images, other)
            evidence = f"its codes are PyTorch's for mean {other.mean} and std {other.std}"
            yield Explanation("normalisation", evidence, _share(question.found, codes))


_TESTS: tuple[Callable[[CodeQuestion], Iterator[Explanation]], ...] = (
    _bit_order,
    _swapped_channels,
    _dead_channels,
    _channel_order,
    _iterations,
    _normalisation,
)


def normalisations(own: Preprocessing) -> Iterator[Preprocessing]:
    """Yield usual normalisations, except a bundle's own: 0..1, -0.5..0.5, -1..1, ImageNet's, and 0..255."""
    usual: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = (
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    )
    for mean, std in usual:
        if (mean, std) != (own.mean, own.std):
            yield structs.replace(own, mean=mean, std=std)


def _matching_channels(found: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Return for each channel of `found` the channel of `expected` that agrees best with it.

    Args:
        found: bits ``uint8 [N, C, positions]``.
        expected: bits of the same shape.
    """
    channels = found.shape[1]
    signs = [2.0 * bits.transpose(1, 0, 2).reshape(channels, -1) - 1 for bits in (found, expected)]
    agreement = signs[0] @ signs[1].T
    own = np.diagonal(agreement)
    return np.where(agreement.max(axis=1) > own, agreement.argmax(axis=1), np.arange(channels))


def _bits(codes: Bytes, shape: Shape) -> npt.NDArray[np.uint8]:
    return np.unpackbits(codes, axis=1).reshape(len(codes), shape[0], -1)


def _share(codes: Bytes, others: Bytes) -> float:
    return float(flipped_bits(codes, others).mean())


def _listed(numbers: Iterable[int]) -> str:
    texts = [str(number) for number in numbers]
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")
