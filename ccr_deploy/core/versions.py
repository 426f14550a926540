"""Versions as numbers."""

from __future__ import annotations

from itertools import takewhile


def version_numbers(version: str) -> tuple[int, ...]:
    """``"10.13.3.9"`` as numbers; what follows them, as in ``"8.6.2.post1"``, is left out."""
    return tuple(map(int, takewhile(str.isdecimal, version.split("."))))
