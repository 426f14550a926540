"""A table of plain text cells, the same for terminal, Markdown and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ccr_deploy.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ccr_deploy.core.metrics import Interval

_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class Table:
    """A table: text columns are aligned left, numbers right.

    A `warning` is what nobody who reads the table may miss.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    warning: str = ""

    @classmethod
    def of(
        cls,
        title: str,
        entries: Iterable[_Entry],
        columns: Sequence[tuple[str, Callable[[_Entry], str]]],
        note: str = "",
        warning: str = "",
    ) -> Table:
        """A row for each entry.

        Args:
            title: its heading.
            entries: what the rows are about.
            columns: the name of each, and what it says of an entry.
            note: below the table.
            warning: see the class.
        """
        rows = tuple(tuple(cell(entry) for _, cell in columns) for entry in entries)
        return cls(title, tuple(name for name, _ in columns), rows, note, warning)

    @property
    def is_text(self) -> tuple[bool, ...]:
        """Whether each column is text: the first, and any other with a cell that begins with a letter."""
        others = range(1, len(self.columns))
        return True, *(any(row[column][:1].isalpha() for row in self.rows) for column in others)

    def __post_init__(self) -> None:
        """Escape what a file's names may smuggle into a terminal or a report."""
        for name, value in list(vars(self).items()):
            object.__setattr__(self, name, _shown(value))


def _shown(value: Any) -> Any:  # noqa: ANN401 -- a text, or tuples of texts
    return printable(value) if isinstance(value, str) else tuple(map(_shown, value))


def number(value: float | None, digits: int, unit: str = "") -> str:
    """A number as a cell, which is empty where there is none."""
    return "" if value is None else f"{value:.{digits}f}{unit}"


def interval_text(interval: Interval | None, digits: int) -> str:
    """An interval as a cell, which is empty where there is none."""
    return "" if interval is None else f"{interval.low:.{digits}f} – {interval.high:.{digits}f}"
