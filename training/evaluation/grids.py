"""Restored images after each iteration as one image: a row for each image, a column for each iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from ccr_deploy.core.atomic import atomic_file, writing
from ccr_deploy.errors import CcrDeployError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

_MIN_SIDE = 96
"""Smaller images are enlarged by a whole factor to at least this height and width, in pixels."""
_GAP = 6
_HEADING = 24
_FONT_SIZE = 15
_PAPER, _INK = (245, 246, 248), (27, 34, 44)


def restoration_grid(images: Tensor, restored: Sequence[Tensor]) -> Image.Image:
    """Return a labelled grid: the original, then the restored image after each iteration.

    Args:
        images: ``uint8 [N, H, W, 3]``.
        restored: for each iteration, ``float32 [N, 3, H, W]`` in 0..1.
    """
    _, height, width, _ = images.shape
    factor = max(1, -(-_MIN_SIDE // min(height, width)))
    height, width = factor * height, factor * width
    columns = [("original", images), *_columns(restored)]
    size = (
        _GAP + len(columns) * (width + _GAP),
        _HEADING + len(images) * (height + _GAP),
    )
    grid = Image.new("RGB", size, _PAPER)
    drawing = ImageDraw.Draw(grid)
    font = ImageFont.load_default(_FONT_SIZE)
    for column, (heading, pixels) in enumerate(columns):
        left = _GAP + column * (width + _GAP)
        drawing.text((left + width / 2, _HEADING / 2), heading, fill=_INK, font=font, anchor="mm")
        for row, image in enumerate(pixels):
            # Nearest neighbour: smoothing would hide the blocks that a compressor makes.
            enlarged = Image.fromarray(image.cpu().numpy()).resize((width, height), Image.Resampling.NEAREST)
            grid.paste(enlarged, (left, _HEADING + row * (height + _GAP)))
    return grid


def _columns(restored: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    """Return heading and pixels ``uint8 [N, H, W, 3]`` of each iteration."""
    return [
        (f"t={number}", (255 * values).round().byte().permute(0, 2, 3, 1))
        for number, values in enumerate(restored, start=1)
    ]


def write_grid(grid: Image.Image, path: Path) -> None:
    """Write a grid as PNG; the file is replaced in one step.

    Raises:
        CcrDeployError: if the file cannot be written.
    """
    with writing(path, CcrDeployError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            grid.save(temporary, format="PNG")
