"""Figures of matplotlib as SVG for a page: its colours and font are the page's, in light and dark."""

from __future__ import annotations

import io
import math
import re
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec

from ccr_deploy.errors import MissingExtraError

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator
except ImportError:
    raise MissingExtraError("matplotlib", "report", "a report with plots") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis

_P = ParamSpec("_P")

INK, SOFT, LINE = "#010101", "#020202", "#030303"
ACCENT, OTHER, GOOD, BAD = "#040404", "#050505", "#060606", "#070707"
_VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    LINE: "--line",
    ACCENT: "--accent",
    OTHER: "--other",
    GOOD: "--good",
    BAD: "--bad",
}
"""Colours that stand for the CSS variables of report.css: a plot follows the page's colour scheme."""

_NOT_FOR_A_PAGE = re.compile(
    r' xmlns(:\w+)?="[^"]*"'  # namespaces, which svg elements in HTML do not need
    r'|(?<=<g) id="[^"]*"'  # ids of groups, which would occur once per plot
    r"|font-family: [^;]*; "  # the page's is inherited
    r"|<style.*?</style>"  # applies to the whole page
)

LARGEST_RATIO = 20.0
"""From this ratio of the largest value to the smallest on, bars have a logarithmic axis."""

_TICKS = ((10, (1, 1.5, 2, 3, 4, 5, 7)), (1000, (1, 2, 5)), (math.inf, (1,)))
"""Ticks of a logarithmic axis as multiples of powers of ten, up to each ratio of its ends."""

WIDTH_INCHES = 4.8
"""461 CSS pixels: text of 10 points stays legible if a phone shrinks the plot to its screen."""

_LEGEND_ROW_INCHES = 0.22

_STYLE: Any = {  # the names of settings are literals of matplotlib's types
    "svg.fonttype": "none",
    "svg.hashsalt": "ccr-deploy",
    "text.parse_math": False,  # a name with dollar signs is no formula
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
}


def in_report_style(draw: Callable[_P, str]) -> Callable[_P, str]:
    """Make a function draw in the style of the report."""

    @wraps(draw)
    def styled(*args: _P.args, **options: _P.kwargs) -> str:
        with mpl.rc_context(_STYLE):
            return draw(*args, **options)

    return styled


class Plot:
    """A figure with panels below each other, for functions that are decorated with `in_report_style`.

    Args:
        height: height in inches.
        description: what it shows, for readers that do not see it.
        panels: number of panels; they share their horizontal axis.
    """

    def __init__(self, height: float, description: str, panels: int = 1) -> None:
        self._description = description
        self._bottom = 0.0  # the part of the height that is not the panels'
        self._figure = Figure(figsize=(WIDTH_INCHES, height))
        self.panels: list[Axes] = list(self._figure.subplots(panels, sharex=True, squeeze=False)[:, 0])
        self.axes = self.panels[0]
        for axes in self.panels:
            axes.spines[["top", "right"]].set_visible(False)

    def legend_below(self, columns: int) -> None:
        """Draw the legend of the first panel below all panels."""
        handles, labels = self.axes.get_legend_handles_labels()
        self._figure.legend(handles, labels, loc="lower center", ncols=columns)
        rows = math.ceil(len(labels) / columns)
        self._bottom = (rows * _LEGEND_ROW_INCHES + 0.1) / self._figure.get_figheight()

    def svg(self) -> str:
        """Return the figure as an SVG element without references to other documents."""
        self._figure.tight_layout(rect=(0, self._bottom, 1, 1))
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self._figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = _NOT_FOR_A_PAGE.sub("", text)
        for colour, variable in _VARIABLES.items():
            text = text.replace(colour, f"var({variable})")
        return text.replace("<svg", f'<svg role="img" aria-label="{escape(self._description)}"', 1)


def use_log_axis(axis: XAxis | YAxis) -> None:
    """Make an axis logarithmic, with plain numbers at powers of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def use_fine_log_axis(axis: XAxis | YAxis, low: float, high: float) -> None:
    """Make an axis logarithmic, with plain numbers also between powers of ten.

    Args:
        axis: the axis.
        low: its lower end.
        high: its upper end.
    """
    use_log_axis(axis)
    axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = next(steps for ratio, steps in _TICKS if high <= ratio * low)
    axis.set_ticks([step * 10.0**decade for decade in decades for step in steps])
    axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})  # the ticks widened it


def needs_log_axis(values: Iterable[float]) -> bool:
    """Return whether one value would dwarf the others on a linear axis; zeros do not count."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) > LARGEST_RATIO * min(positive)
