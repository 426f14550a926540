"""Suggestions for a name that does not exist."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def choose_from(name: str, known: Collection[str]) -> str:
    """Return the end of an error message about an unknown name: similar names, and all known ones."""
    choices = f"choose from {', '.join(known)}"
    # A prefix first: "build" is not similar enough to "build-engine" to be a close match.
    similar = [entry for entry in known if name and entry.startswith(name)] or get_close_matches(name, known)
    return f"did you mean {' or '.join(similar)}? ({choices})" if similar else choices
