"""A section of the HTML report: text, plot, table and images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccr_deploy.reporting.table import Table


@dataclass(frozen=True)
class ShownImage:
    """A thumbnail with its caption; `mark` is "pass", "fail" or "" and gives the heading its colour."""

    name: str
    png_base64: str
    heading: str
    mark: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A section of the page; what is empty is left out.

    `plot` is an SVG element. `shades` has a number from 0 to 1 for each cell of the table, without the
    first column. `wide_image` is shown in its own size, or in the page's width if that is smaller.
    """

    title: str
    text: str = ""
    plot: str = ""
    table: Table | None = None
    shades: tuple[tuple[float, ...], ...] = ()
    images: tuple[ShownImage, ...] = ()
    wide_image: ShownImage | None = None
