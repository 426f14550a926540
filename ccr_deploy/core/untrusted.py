"""Files that may be hostile: opened if they are regular, read up to a limit, parsed up to a depth.

By the standard library alone: a product reads its bundle and its engines' sidecars through it. It raises
`OSError`, whose ``strerror`` says what is wrong, or `ValueError`; callers name the file and the remedy.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ccr_deploy.errors import CcrDeployError

MAX_BYTES = 16 << 20
"""The largest record: a manifest with 20,000 class names takes half a megabyte."""

MAX_DEPTH = 32
MAX_VALUES = 2_000_000
_INT64 = range(-(1 << 63), 1 << 63)


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes; never wait for a FIFO, never touch a device.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    _check_regular(os.stat(path), path)  # noqa: PTH116 -- opening some devices does something already
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(descriptor), path)  # it may have been replaced meanwhile
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a whole regular file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read, is larger, or is not a regular file.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than the limit of {limit >> 10} KiB", str(path))
    return content


@contextmanager
def reading(path: Path, error: type[CcrDeployError], remedy: str = "") -> Iterator[None]:
    """Say which file could not be read, and with `remedy` what to do about it (``": build it again"``).

    Raises:
        error: the operating system, or `open_regular`, refused it; the message names `path` and says why.
    """
    try:
        yield
    except OSError as refusal:
        raise error(f"{path}: cannot be read ({refusal.strerror}){remedy}") from refusal


def parse_json(text: bytes) -> object:
    """Parse JSON in UTF-8 without byte order mark; what it holds passes `check_plain`.

    Raises:
        ValueError: it is not that.
    """
    try:
        content = json.loads(text.decode())
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep") from None
    check_plain(content)
    return content


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: as `parse_json` says.
    """
    return parse_json(read_bytes(path))


def check_plain(content: object) -> None:
    """Check that lists and dictionaries are neither deep nor vast, and that what is in them can be written.

    Raises:
        ValueError: they are, a text is not Unicode, or a number does not fit 64 bits.
    """
    open_levels: list[Iterator[object]] = [iter((content,))]
    count = 0
    while open_levels:
        for value in open_levels[-1]:
            count += 1
            if count > MAX_VALUES:
                raise ValueError(f"holds more than {MAX_VALUES} values")
            if isinstance(value, dict | list | tuple):
                if len(open_levels) > MAX_DEPTH:
                    raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
                open_levels.append(chain(value, value.values() if isinstance(value, dict) else ()))
                break
            _check_scalar(value)
        else:
            open_levels.pop()


def _check_scalar(value: object) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the text {ascii(value)[:60]} holds half of a surrogate pair") from None
    elif type(value) is int and value not in _INT64:
        raise ValueError("a whole number does not fit 64 bits")


def _check_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "a FIFO, socket or device, not a file", str(path))
