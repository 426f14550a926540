"""Progress as events: a stage tells what it does, whoever called it decides what to show."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Advance = Callable[[int], None]


class Progress(Protocol):
    """Where a stage's progress goes."""

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Opens a task of `total` units; the function it yields says how many more are done."""
        ...


class SilentProgress:
    """Shows nothing: for pipes, tests and library users."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:  # noqa: ARG002
        """A task that nobody watches."""
        yield lambda _: None


SILENT = SilentProgress()
