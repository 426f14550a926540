"""Tables as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.reporting.tables import Table


def markdown(title: str, tables: Sequence[Table]) -> str:
    """A Markdown document with a heading and a section a table."""
    return "\n".join([f"# {title}", "", *(line for table in tables for line in _section(table))])


def _section(table: Table) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    alignments = ["---", *(["---:"] * (len(table.columns) - 1))]
    lines = [
        f"## {table.title}",
        "",
        line(table.columns),
        line(alignments),
        *(line(row) for row in table.rows),
        "",
    ]
    return [*lines, table.note, ""] if table.note else lines
