"""Versions as numbers."""

from __future__ import annotations


def version_numbers(version: str) -> tuple[int, ...]:
    """``"10.13.3.9"`` as numbers; what follows them, as in ``"8.6.2.post1"``, is left out."""
    parts = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        parts.append(int(part))
    return tuple(parts)
