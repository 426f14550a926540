"""Shards: the parts of a set of batches that several machines run."""

from __future__ import annotations

import re
from itertools import count, islice
from typing import TYPE_CHECKING, Annotated, TypeVar

from msgspec import Meta

from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_SHARDS = 1000
"""All parts are open while they are joined; the usual limit is 1,024 open files."""

_SHARD = re.compile(r"(\d{1,4})/(\d{1,4})", re.ASCII)
_Item = TypeVar("_Item")


class Shard(Record, frozen=True):
    """Shard `index` of `shards`, counted from 0: every batch whose number modulo `shards` is `index`.

    Whole batches are divided, so that each has the same images as in one run: the results of some libraries
    differ in the last digits if an image is in another batch.
    """

    index: Annotated[int, Meta(ge=0)] = 0
    shards: Annotated[int, Meta(ge=1, le=MAX_SHARDS)] = 1

    def __post_init__(self) -> None:
        if self.index >= self.shards:
            raise ValueError(f"shard {self}: the first number must be less than the second")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read a shard from the form ``I/N``.

        Raises:
            ValueError: if the text does not have this form, or I is not less than N.
        """
        found = _SHARD.fullmatch(text)
        index, shards = (int(found[1]), int(found[2])) if found else (0, 0)
        if not index < shards <= MAX_SHARDS:
            raise ValueError(f"{text!r} is not I/N with 0 <= I < N <= {MAX_SHARDS}, such as 0/4")
        return cls(index, shards)

    def __str__(self) -> str:
        return f"{self.index}/{self.shards}"

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the shard's batches, without end."""
        return count(self.index, self.shards)

    def chosen(self, batches: Iterable[_Item]) -> Iterator[_Item]:
        """Return the shard's batches."""
        return islice(batches, self.index, None, self.shards)


WHOLE = Shard()
"""The only shard of a set that is not divided."""
