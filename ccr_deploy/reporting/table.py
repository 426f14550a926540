"""A table of plain text cells, the same for terminal, Markdown and HTML."""

from __future__ import annotations

from dataclasses import dataclass


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
