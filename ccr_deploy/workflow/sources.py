"""Files and folders that a command was given, as the images and payloads in them."""

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
"""More than the largest image's code takes."""


@dataclass(frozen=True)
class SourceFile:
    """A file, and its name within the folder that was named: for a file that was named itself, its own."""

    path: Path
    name: Path


def list_sources(paths: Sequence[Path], *, with_payloads: bool = False) -> list[SourceFile]:
    """The images (and payloads) that were named, and those in the folders that were, sorted by path.

    Raises:
        ImageError: a file or folder is missing, or a folder has none.
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
                raise ImageError(f"{path}: no {what} in it ({', '.join(sorted(suffixes))})")
            found += [SourceFile(entry, entry.relative_to(path)) for entry in inside]
        elif path.exists():
            found.append(SourceFile(path, Path(path.name)))
        else:
            raise ImageError(f"{path}: no such file")
    return found


def contract_image(path: Path, contract: CodeContract) -> npt.NDArray[np.uint8]:
    """Load an image's file as an image that a contract is about: ``uint8 [H, W, 3]``.

    Raises:
        ImageError: it cannot be used.
    """
    return load_image(path, contract.preprocessing, contract.image_height, contract.image_width)


def is_payload(path: Path) -> bool:
    """Whether a file is called a payload, or begins as one.

    Raises:
        WrongUsageError: it cannot be read.
    """
    with reading(path, WrongUsageError), open_regular(path) as file:
        return path.suffix == SUFFIX or file.read(len(MAGIC)) == MAGIC


def read_payload_bytes(path: Path) -> bytes:
    """Read a payload file; what is in it is not looked at.

    Raises:
        WrongUsageError: it cannot be read.
    """
    with reading(path, WrongUsageError):
        return read_bytes(path, MAX_PAYLOAD_BYTES)
