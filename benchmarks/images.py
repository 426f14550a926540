"""Plots of the package's report as SVG files of their own, which the site shows as images."""

from __future__ import annotations

_STYLE = """<style>
svg { color-scheme: light dark; font-family: system-ui, "Segoe UI", "Noto Sans", Helvetica, sans-serif;
  --ink: #1b222c; --soft: #56616f; --line: #dde2e8; --accent: #2563a8; --other: #b9c4d0; --good: #1d7a45;
  --bad: #b3261e; }
text { fill: var(--ink); }
@media (prefers-color-scheme: dark) { svg { --ink: #e6eaef; --soft: #a3aebb; --line: #343d48;
  --accent: #6cabf0; --other: #4e5b69; --good: #62c98d; --bad: #ff8a80; } }
</style>"""
"""The colours of the report, which `ccr_deploy.reporting.svg` names by CSS variables."""


def standalone(plot: str) -> bytes:
    """Return a plot, an SVG element for a page, as a file of its own in light and dark.

    Args:
        plot: what `ccr_deploy.reporting.svg.Plot.svg` returned.
    """
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    start, end, rest = plot.replace("<svg", f"<svg {spaces}", 1).partition(">")
    lines = f"{start}{end}\n{_STYLE}{rest}".splitlines()
    return ("\n".join(line.rstrip() for line in lines) + "\n").encode()
