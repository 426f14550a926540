"""The image and payload files that a command was given, by name or in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy.codec.payload import MAGIC, SUFFIX
from ccr_deploy.core.untrusted import open_regular, read_bytes, reading
from ccr_deploy.data.images import SUFFIXES, load_image
from ccr_deploy.errors import ImageError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from ccr_deploy.codec.contract import CodeContract

MAX_PAYLOAD_BYTES = 64 << 20
"""Larger than the code of the largest image."""


@dataclass(frozen=True)
class SourceFile:
    """A file, and its path relative to the folder it was found in; for a file given by name, its own name."""

    path: Path
    name: Path


def list_sources(paths: Sequence[Path], *, with_payloads: bool = False) -> list[SourceFile]:
    """Return the given files, and the images (and payloads) in the given folders, sorted by path.

    Raises:
        ImageError: if a file or folder does not exist, or a folder has no images or payloads.
    """
    suffixes = SUFFIXES | {SUFFIX} if with_payloads else SUFFIXES
    found: list[SourceFile] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                entry for entry in path.rglob("*") if entry.suffix.lower() in suffixes and entry.is_file()
            )
            if not inside:
                what = "images or payloads" if with_payloads else "images"
                raise ImageError(f"{path}: contains no {what} ({', '.join(sorted(suffixes))})")
            found += [SourceFile(entry, entry.relative_to(path)) for entry in inside]
        elif path.exists():
            found.append(SourceFile(path, Path(path.name)))
        else:
            raise ImageError(f"{path}: no such file or folder")
    return found


def contract_image(path: Path, contract: CodeContract) -> npt.NDArray[np.uint8]:
    """Load an image file, preprocessed as the contract requires: ``uint8 [H, W, 3]``.

    Raises:
        ImageError: if the file is not an image, or the image is too small or too large.
    """
    return load_image(path, contract.preprocessing, contract.image_height, contract.image_width)


def is_payload(path: Path) -> bool:
    """Return whether a file has the suffix of payloads or starts with their magic bytes.

    Raises:
        WrongUsageError: if the file cannot be read.
    """
    with reading(path, WrongUsageError), open_regular(path) as file:
        return path.suffix == SUFFIX or file.read(len(MAGIC)) == MAGIC


def read_payload_bytes(path: Path) -> bytes:
    """Read a payload file without checking its content.

    Raises:
        WrongUsageError: if the file cannot be read.
    """
    with reading(path, WrongUsageError):
        return read_bytes(path, MAX_PAYLOAD_BYTES)
