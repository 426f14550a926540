"""Tables and images in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich.box
import rich.table
from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from ccr_deploy.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    from rich.console import Console

    from ccr_deploy.reporting.table import Table

_VERDICTS = {"pass": "green", "FAIL": "bold red"}


def print_table(console: Console, table: Table) -> None:
    """Prints a table; in a pipe it stays whole instead of being cut to a width."""
    drawn = rich.table.Table(
        title=Text(table.title),
        caption=_caption(table),
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
    )
    for number, (column, is_text) in enumerate(zip(table.columns, table.is_text, strict=True)):
        drawn.add_column(column, justify="left" if is_text else "right", no_wrap=number == 0)
    for row in table.rows:
        drawn.add_row(*(Text(cell, style=_VERDICTS.get(cell, "")) for cell in row))
    console.print(drawn)


def print_warnings(console: Console, warnings: Sequence[str]) -> None:
    """Print a line each."""
    for line in warnings:
        console.print(Text(printable(f"warning: {line}"), style="yellow"), soft_wrap=True)


def _caption(table: Table) -> Text | None:
    parts = [Text(table.warning, "bold red"), Text(table.note)]
    return Text("\n").join(part for part in parts if part) if any(parts) else None


def half_block_image(image: npt.NDArray[np.uint8], columns: int = 32) -> Segments:
    """An image ``uint8 [H, W, 3]`` in coloured half blocks, two pixels a character."""
    height, width, _ = image.shape
    rows = max(2, round(columns * height / width / 2) * 2)
    small = image[[row * height // rows for row in range(rows)]][
        :, [column * width // columns for column in range(columns)]
    ]
    segments = []
    for top, bottom in zip(small[0::2], small[1::2], strict=True):
        for upper, lower in zip(top, bottom, strict=True):
            style = Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))
            segments.append(Segment("▀", style))
        segments.append(Segment.line())
    return Segments(segments)
