"""Tables as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.reporting.table import Table


def markdown(title: str, tables: Sequence[Table], warnings: Sequence[str] = ()) -> str:
    """Return a Markdown document.

    Args:
        title: its heading.
        tables: a section each.
        warnings: lines above the first section.
    """
    lines = [f"**Warning:** {line}\n" for line in warnings]
    sections = [f"## {table.title}\n\n{markdown_table(table)}" for table in tables]
    return "\n".join([f"# {title}\n", *lines, *sections])


def markdown_table(table: Table) -> str:
    """A table with its warning and note below, without its title."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    alignments = ["---", *(["---:"] * (len(table.columns) - 1))]
    lines = [line(table.columns), line(alignments), *(line(row) for row in table.rows), ""]
    remarks = [f"**{table.warning}**" if table.warning else "", table.note]
    return "\n".join([*lines, *(part for remark in remarks if remark for part in (remark, ""))])
