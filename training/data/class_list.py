"""Files that list classes, one per line, such as the usual list of ImageNet-100."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ccr_deploy.core.untrusted import read_bytes, reading
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from pathlib import Path

_WORDNET_ID = re.compile(r"(n\d{8})\b.*")
"""A WordNet id as ImageNet's folders are named; a name for people may follow it."""


def read_class_list(path: Path) -> tuple[str, ...]:
    """Read the names of classes, one per line, in the order of the file.

    If a line begins with a WordNet id (``n01440764 tench, Tinca tinca``), the id is the class. Otherwise the
    whole line is. Empty lines are skipped.

    Raises:
        WrongUsageError: if the file cannot be read, is not text, lists a class twice, less than two classes,
            or what cannot be the name of a folder.
    """
    with reading(path, WrongUsageError):
        content = read_bytes(path)
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise WrongUsageError(f"{path}: not text in UTF-8: give a file with one class per line") from None
    first_lines: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        found = _WORDNET_ID.fullmatch(line)
        name = found[1] if found else line
        if "/" in name or name in {".", ".."} or "\0" in name:
            raise WrongUsageError(
                f"{path}: line {number}: {name[:60]!r} cannot be the name of a class folder"
            )
        if name in first_lines:
            raise WrongUsageError(
                f"{path}: lists {name} on line {first_lines[name]} and again on line {number}: remove one"
            )
        first_lines[name] = number
    if len(first_lines) < 2:
        raise WrongUsageError(f"{path}: lists {len(first_lines)} classes: at least 2 are needed")
    return tuple(first_lines)


def short_list(names: list[str]) -> str:
    """Return the first three names, and an ellipsis if there are more."""
    return f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
