"""A table of plain text cells, the same for terminal, Markdown and HTML."""

from __future__ import annotations

from dataclasses import dataclass

from ccr_deploy.core.printable import printable


@dataclass(frozen=True)
class Table:
    """A table: the first column is text, the others are numbers and set to the right.

    A `warning` is what nobody who reads the table may miss.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    warning: str = ""

    def __post_init__(self) -> None:
        """Escape what a file's names may smuggle into a terminal or a report."""
        shown = {
            "title": printable(self.title),
            "columns": tuple(map(printable, self.columns)),
            "rows": tuple(tuple(map(printable, row)) for row in self.rows),
            "note": printable(self.note),
            "warning": printable(self.warning),
        }
        for name, value in shown.items():
            object.__setattr__(self, name, value)
