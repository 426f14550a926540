"""Read untrusted files: only regular files are opened, with limits on size, depth and number of values.

Uses only the standard library, since products read bundles and sidecars with it. Functions raise `OSError`,
whose ``strerror`` contains the reason, or `ValueError`; the caller adds the file's name and what to do.
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
"""The limit for a JSON file; a manifest with 20,000 class names takes half a megabyte."""

MAX_DEPTH = 32
MAX_VALUES = 2_000_000
MAX_RESULT_BYTES = 256 << 20
"""The limit for a result of `benchmark` or `verify`, which has the raw samples."""
MAX_RESULT_VALUES = 20_000_000
_INT64 = range(-(1 << 63), 1 << 63)
"""The integers that msgspec can hold and write."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; does not block on a FIFO and does not open devices.

    Raises:
        OSError: if the file cannot be opened or is not a regular file.
    """
    _check_regular(os.stat(path), path)  # noqa: PTH116 -- before opening: that has side effects on some devices
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(descriptor), path)  # it may have been replaced since the first check
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a whole regular file of at most `limit` bytes.

    Raises:
        OSError: if the file cannot be read, is larger, or is not a regular file.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)  # not the file's stated size, since it may grow meanwhile
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than the limit of {limit >> 10} KiB", str(path))
    return content


@contextmanager
def reading(path: Path, error: type[CcrDeployError], remedy: str = "") -> Iterator[None]:
    """Turn an OSError in the body into a project error that names the file.

    Args:
        path: the file that is read, for the message.
        error: the exception to raise.
        remedy: what the user can do, with a leading colon (``": build it again"``); may be empty.

    Raises:
        error: if the body raises OSError; the message contains the path and the reason.
    """
    try:
        yield
    except FileNotFoundError as refusal:
        raise error(f"{path}: no such file{remedy}") from refusal
    except OSError as refusal:
        raise error(f"{path}: cannot be read ({refusal.strerror}){remedy}") from refusal


def parse_json(text: bytes, max_values: int = MAX_VALUES) -> object:
    """Parse JSON in UTF-8 without byte order mark, and check its content with `check_plain`.

    Raises:
        ValueError: if it is not such JSON or its content exceeds the limits.
    """
    try:
        content = json.loads(text.decode())
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep") from None
    check_plain(content, max_values)
    return content


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if `parse_json` refuses the content.
    """
    return parse_json(read_bytes(path))


def check_plain(content: object, max_values: int = MAX_VALUES) -> None:
    """Check the depth and number of values of nested lists and dictionaries, and each value.

    Raises:
        ValueError: if they are nested too deeply or hold too many values, a string is not valid Unicode, or
            an integer does not fit 64 bits.
    """
    # Iterative, because a pickle can hold lists deeper than Python's recursion limit, or lists in themselves.
    open_levels: list[Iterator[object]] = [iter((content,))]
    count = 0
    while open_levels:
        for value in open_levels[-1]:
            count += 1
            if count > max_values:
                raise ValueError(f"holds more than {max_values} values")
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
        raise ValueError("an integer does not fit 64 bits")


def _check_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "a FIFO, socket or device, not a regular file", str(path))
