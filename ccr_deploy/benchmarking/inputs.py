"""The inputs of timed runs: one that is repeated during a round, and fresh ones that never occurred before.

An engine that caches answers by their inputs is fast on repeated inputs alone. Both kinds are new arrays, so
that they differ in their content only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

RANDOM_ITEMS = 8
REPEATED, FRESH = "r", "f"
_CHANGED_BYTES = 8
"""Bytes that make an input fresh: two of 2^64 values are hardly ever equal."""


class Items(Record, frozen=True):
    """Message to a process: images ``uint8 [N, H, W, 3]`` or packed codes ``uint8 [N, bytes]``."""

    shape: tuple[int, ...]
    content: bytes

    @classmethod
    def of(cls, array: Bytes) -> Items:
        """Return an array as a message."""
        return cls(array.shape, np.ascontiguousarray(array).tobytes())

    def array(self) -> Bytes:
        """Return the array."""
        return np.frombuffer(self.content, np.uint8).reshape(self.shape)


def random_items(shape: tuple[int, ...]) -> Bytes:
    """Return `RANDOM_ITEMS` random items of a shape."""
    return np.random.default_rng(0).integers(0, 256, (RANDOM_ITEMS, *shape), dtype=np.uint8)


def inputs_of_round(number: int, runs: int) -> str:
    """Return a letter for each run of a round: `REPEATED` or `FRESH`.

    Each kind is one half of the round, so that an engine that caches only its last answer is found too. The
    halves swap from round to round, so that a drift during the rounds affects both alike.

    Args:
        number: the number of the round, from 0.
        runs: the number of runs.
    """
    first, second = (REPEATED, FRESH) if number % 2 == 0 else (FRESH, REPEATED)
    half = (runs + 1) // 2
    return first * half + second * (runs - half)


class InputSource:
    """Makes batches of items; the image of the repeated input changes from round to round.

    Args:
        items: ``uint8 [N, ...]``.
        batch: items of a batch.
    """

    def __init__(self, items: Bytes, batch: int) -> None:
        self._items = items
        self._offsets = np.arange(batch)
        self._generator = np.random.default_rng()  # no seed: another run's inputs do not occur again either

    @property
    def batch_bytes(self) -> int:
        """The size of a batch."""
        return len(self._offsets) * self._items[0].nbytes

    def items(self, number: int) -> tuple[int, ...]:
        """Return the numbers of the items of a round's repeated input."""
        return tuple(self._indices(number).tolist())

    def make(self, letter: str, number: int) -> Bytes:
        """Return a new batch.

        Args:
            letter: `REPEATED` or `FRESH`.
            number: the number of the round.
        """
        # Fresh inputs come from other images: an answer of the run before would be wrong for both.
        shift = len(self._items) // 2 if letter == FRESH else 0
        array: Bytes = self._items[self._indices(number + shift)]
        if letter == FRESH:
            flat = array.reshape(len(array), -1)
            changed = min(_CHANGED_BYTES, flat.shape[1])
            start = int(self._generator.integers(flat.shape[1] - changed + 1))
            noise = self._generator.integers(0, 256, (len(flat), changed), dtype=np.uint8)
            flat[:, start : start + changed] ^= noise
        return array

    def _indices(self, first: int) -> npt.NDArray[np.int64]:
        return (first + self._offsets) % len(self._items)
