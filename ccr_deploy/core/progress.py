"""Progress events: a stage reports what it does, and its caller decides how to show it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Advance = Callable[[int], None]


class Progress(Protocol):
    """Receiver of a stage's progress events."""

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Start a task of `total` units; call the yielded function with the number of units just done."""
        ...


class SilentProgress:
    """Shows nothing: for pipes, tests and library users."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:  # noqa: ARG002
        """Ignore the task's progress."""
        yield lambda _: None


SILENT = SilentProgress()
