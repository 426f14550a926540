"""Make text from files, and file names, safe to print on a terminal."""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SUSPECT = re.compile(r"[^ -~]")


def printable(text: str) -> str:
    r"""Replace control, format and invalid characters by their escapes (``\x1b``), so that text is one line.

    Otherwise a file name could move the cursor, reverse the text direction, or look like a separate message.
    """
    return _SUSPECT.sub(_escaped, text)


def reason_of(error: Exception) -> str:
    """Return a library's error message on one line, cut to 300 characters; its class if it has no message."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    is_hidden = unicodedata.category(character) in _HIDDEN
    return character.encode("unicode_escape").decode() if is_hidden else character
