"""Plots of results as SVG files of the site, in the colours of the report's light and dark schemes."""

from __future__ import annotations

_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_COLOURS = """<style>
svg { color-scheme: light dark; font-family: system-ui, "Segoe UI", "Noto Sans", Helvetica, sans-serif;
  --ink: #1b222c; --soft: #56616f; --line: #dde2e8; --accent: #2563a8; --other: #9aa7b5;
  --good: #1d7a45; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6eaef; --soft: #a3aebb; --line: #343d48; --accent: #6cabf0; --other: #6b7a8c;
    --good: #62c98d; --bad: #ff8a80; }
}
</style>
"""


def standalone(element: str) -> str:
    """Return the content of an SVG file from an SVG element of a page, whose style sheet has the colours.

    Args:
        element: the element, as `ccr_deploy.reporting.svg.Plot` draws it.
    """
    head, end, rest = element.partition(">")
    head = head.replace("<svg", f"<svg {_NAMESPACES}", 1)
    lines = (head.replace("\n", " ") + end + "\n" + _COLOURS + rest).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)
