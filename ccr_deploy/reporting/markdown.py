"""Tables as Markdown; no text of a table becomes HTML, a link or an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.printable import printable

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
    lines = [f"**Warning:** {_plain(printable(line))}\n" for line in warnings]
    sections = [f"## {_plain(table.title)}\n\n{markdown_table(table)}" for table in tables]
    return "\n".join([f"# {title}\n", *lines, *sections])


def markdown_table(table: Table) -> str:
    """A table with its warning and note below, without its title."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_plain(cell) for cell in cells) + " |"

    alignments = [":---" if is_text else "---:" for is_text in table.is_text]
    lines = [line(table.columns), line(alignments), *(line(row) for row in table.rows), ""]
    remarks = [f"**{_plain(table.warning)}**" if table.warning else "", _plain(table.note)]
    return "\n".join([*lines, *(part for remark in remarks if remark for part in (remark, ""))])


def _plain(text: str) -> str:
    for character, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("](", "]\\(")):
        text = text.replace(character, shown)
    return text
