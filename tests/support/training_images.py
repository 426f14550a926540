"""Image folders and shards of scikit-image's photos, in the layout that training reads."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import skimage.data
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CLASSES = ("astronaut", "chelsea", "coffee")
IMAGES = {"train": 4, "val": 2}
"""Images of each class."""


def photo(name: str) -> Image.Image:
    """Return one of scikit-image's photos."""
    return Image.fromarray(np.asarray(getattr(skimage.data, name)()))


def crops(name: str, split: str) -> Iterator[bytes]:
    """Yield the JPEG files of one class in one split; no two are equal."""
    image = photo(name)
    offset = 0 if split == "train" else 150
    for number in range(IMAGES[split]):
        buffer = io.BytesIO()
        left = offset + 20 * number
        image.crop((left, 10, left + 120, 100)).save(buffer, format="JPEG")
        yield buffer.getvalue()


def write_folders(folder: Path, classes: Sequence[str] = CLASSES) -> Path:
    """Write ``train`` and ``val`` with one folder for each class, and return `folder`."""
    for split in IMAGES:
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for number, content in enumerate(crops(name, split)):
                (folder / split / name / f"{number}.JPEG").write_bytes(content)
    return folder


def write_shards(folder: Path, labels: Sequence[str | int] = CLASSES, suffix: str = "cls") -> Path:
    """Write ``train`` and ``val`` with shards of 5 images, and return `folder`.

    Args:
        folder: the folder to write to.
        labels: the label of each class in `CLASSES`, a name or a number.
        suffix: the suffix of the label's member.
    """
    from webdataset import ShardWriter

    for split in IMAGES:
        (folder / split).mkdir(parents=True)
        with ShardWriter(str(folder / split / f"{split}-%03d.tar"), maxcount=5, verbose=0) as writer:
            for name, label in zip(CLASSES, labels, strict=True):
                for number, content in enumerate(crops(name, split)):
                    value = {"label": label} if suffix == "json" else str(label)
                    writer.write({"__key__": f"{name}_{number}", "jpg": content, suffix: value})
    return folder
