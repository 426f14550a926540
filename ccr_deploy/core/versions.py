"""Version strings as tuples of numbers, for comparison."""

from __future__ import annotations

from itertools import takewhile


def version_numbers(version: str) -> tuple[int, ...]:
    """Parse ``"10.13.3.9"`` to ``(10, 13, 3, 9)``; a suffix that is not a number (``.post1``) is ignored."""
    return tuple(map(int, takewhile(str.isdecimal, version.split("."))))
