"""Texts from files and names of files, as a terminal may show them."""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SUSPECT = re.compile(r"[^ -~]")


def printable(text: str) -> str:
    r"""Return `text` on one line, every control, format or invalid character as its escape (``\x1b``).

    So no name can move the cursor, turn the direction of writing, or pass for a line of its own.
    """
    return _SUSPECT.sub(_escaped, text)


def reason_of(error: Exception) -> str:
    """Return what a library's error says, on one line and not too much of it, for a message in brackets."""
    return " ".join(str(error).split())[:300]


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    is_hidden = unicodedata.category(character) in _HIDDEN
    return character.encode("unicode_escape").decode() if is_hidden else character
