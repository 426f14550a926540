"""A table of text cells, for terminal, Markdown and HTML."""

from __future__ import annotations

import math
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

    `warning` is shown below the table, in bold; `note` below it.
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
        """Return a table with a row for each entry.

        Args:
            title: heading of the table.
            entries: the subject of each row.
            columns: name of each column, and the function that returns an entry's cell.
            note: line below the table.
            warning: line in bold below the table.
        """
        rows = tuple(tuple(cell(entry) for _, cell in columns) for entry in entries)
        return cls(title, tuple(name for name, _ in columns), rows, note, warning)

    @property
    def is_text(self) -> tuple[bool, ...]:
        """Whether each column is text: the first, and any other with a cell that begins with a letter."""
        others = range(1, len(self.columns))
        return True, *(any(row[column][:1].isalpha() for row in self.rows) for column in others)

    def __post_init__(self) -> None:
        """Escape control characters, which names of files may contain."""
        for name, value in list(vars(self).items()):
            object.__setattr__(self, name, _shown(value))


def _shown(value: Any) -> Any:  # noqa: ANN401 -- a text, or tuples of texts
    return printable(value) if isinstance(value, str) else tuple(map(_shown, value))


def number(value: float | None, digits: int, unit: str = "") -> str:
    """Return a number as a cell; None is an empty cell.

    Args:
        value: the number.
        digits: digits after the decimal point.
        unit: unit, with a space before it if there is to be one.
    """
    return "" if value is None else f"{value:.{digits}f}{unit}"


def significant(value: float, decimals: int = 0) -> str:
    """Return a number with at least three significant digits as a cell.

    Args:
        value: the number.
        decimals: the smallest number of digits after the decimal point.
    """
    digits = max(decimals, 2 - math.floor(math.log10(abs(value)))) if value else decimals
    return f"{value:.{digits}f}"


def interval_text(interval: Interval | None, digits: int) -> str:
    """Return an interval as a cell; None is an empty cell."""
    return "" if interval is None else f"{interval.low:.{digits}f} – {interval.high:.{digits}f}"
