"""``python -m scripts.draw_layers``: the diagram of the import rule, from import-linter's contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tomllib

from ccr_deploy.core.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
DRAWING = ROOT / "docs" / "images" / "layers.svg"

WORDS = {
    "cli": "commands: parse, call, print",
    "workflow": "the work of each command",
    "runtime": "the Python API of a product",
    "export": "seven stages, which do not import each other",
    "engines": "engine store, sidecars, verdicts",
    "targets": "target files and their fields",
    "backends": "build, load and run engines",
    "bundle": "manifest, reader and writer",
    "models": "networks and checkpoints",
    "graphs": "hash and passes of ONNX graphs",
    "data": "image and video files",
    "codec": "code contract and payload",
    "core": "records, files, metrics, precisions",
    "errors": "all exceptions",
}
"""A short description of each layer, by its first package."""

WIDTH, MARGIN = 560, 12
BOX, ROW, GAP = 126, 26, 6
"""Width and height of a package's box, and the space between boxes, in pixels."""
PER_ROW = 4

STYLE = """
    svg { color-scheme: light dark; font-family: system-ui, "Segoe UI", "Noto Sans", Helvetica, sans-serif; }
    text { text-anchor: middle; fill: #1f2328; font-size: 16px; }
    .words { text-anchor: start; fill: #59636e; font-size: 15px; }
    .card { fill: #ffffff; stroke: #d1d9e0; }
    .layer { fill: #f6f8fa; stroke: #d1d9e0; }
    .package { fill: #ffffff; stroke: #818b98; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; }
      .words { fill: #9198a1; }
      .card { fill: #0d1117; stroke: #3d444d; }
      .layer { fill: #151b23; stroke: #3d444d; }
      .package { fill: #0d1117; stroke: #9198a1; }
    }
"""


def layers() -> list[list[str]]:
    """Return the packages of each layer, from the top layer to the bottom one."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = [one for one in contracts["contracts"] if one.get("containers") == ["ccr_deploy"]]
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def svg() -> str:
    """Return the diagram: one band for each layer."""
    bands, top = [], MARGIN
    for names in layers():
        height = -(-len(names) // PER_ROW) * (ROW + GAP) + GAP + (ROW if len(names) > 1 else 0)
        size = f'width="{WIDTH - 2 * MARGIN}" height="{height}"'
        bands.append(f'  <rect class="layer" x="{MARGIN}" y="{top}" {size} rx="6"/>')
        bands.extend(boxes(names, top + GAP))
        # Beside a single package, below several.
        left, baseline = (
            (MARGIN + BOX + 3 * GAP, top + 24) if len(names) == 1 else (2 * MARGIN, top + height - 10)
        )
        bands.append(f'  <text class="words" x="{left}" y="{baseline}">{WORDS[names[0]]}</text>')
        top += height + GAP
    height = top - GAP + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img">\n'
        f"  <title>Layers of ccr_deploy: a package imports packages of lower layers only</title>\n"
        f"  <style>{STYLE}  </style>\n"
        f'  <rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>\n'
        + "\n".join(bands)
        + "\n</svg>\n"
    )


def boxes(names: list[str], top: int) -> Iterator[str]:
    """Yield the packages of a layer in rows.

    Args:
        names: the packages.
        top: the upper edge of the first row, in pixels.
    """
    for number, name in enumerate(names):
        row, column = divmod(number, PER_ROW)
        left = MARGIN + GAP + column * (BOX + GAP)
        y = top + row * (ROW + GAP)
        yield f'  <rect class="package" x="{left}" y="{y}" width="{BOX}" height="{ROW}" rx="5"/>'
        yield f'  <text x="{left + BOX // 2}" y="{y + 18}">{name}</text>'


if __name__ == "__main__":
    write_atomically(DRAWING, svg().encode())
