"""The numbers of iterations T that a network was trained with. Does not import torch.

A network runs with any T, but its accuracy is much lower with a T that it was not trained with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ITERATIONS = 32
"""Limit for T, against graphs of unreasonable size: an unrolled graph grows with T."""


def checked_iterations(trained: tuple[int, ...]) -> tuple[int, ...]:
    """Check trained iterations and return them unchanged.

    Raises:
        FieldError: if a number is outside 1 to 32 or occurs twice.
    """
    if len(set(trained)) != len(trained) or any(not 1 <= number <= MAX_ITERATIONS for number in trained):
        listed = ", ".join(map(str, trained))
        problem = f"{listed}: different numbers from 1 to {MAX_ITERATIONS} are needed"
        raise FieldError(("trained_iterations",), problem)
    return trained


def parse_iterations(text: str, option: str) -> tuple[int, ...]:
    """Parse numbers of iterations such as ``3`` or ``2,3,4``, and sort them.

    Args:
        text: what was typed.
        option: the option that it was typed for, for messages.

    Raises:
        WrongUsageError: if it is not a list of different numbers from 1 to 32.
    """
    try:
        return tuple(sorted(checked_iterations(tuple(int(part) for part in text.split(",")))))
    except ValueError:
        raise WrongUsageError(
            f"{option} {text!r}: give different whole numbers from 1 to {MAX_ITERATIONS}, "
            "separated by commas, such as 3 or 2,3,4"
        ) from None


def named_iterations(trained: Sequence[int]) -> str:
    """Return ``T=3``, ``T=2, 3, 4`` for several numbers, or ``no T`` for none."""
    return f"T={', '.join(map(str, trained))}" if trained else "no T"


def untrained_warning(network: str, iterations: int, trained: Sequence[int]) -> str | None:
    """Return a warning if a network runs with a T that it was not trained with; None if it was.

    Args:
        network: the network's name in the warning, such as ``checkpoint``.
        iterations: the T that it runs with.
        trained: every T that it was trained with; empty if it never was.
    """
    if not trained:
        return f"the {network}'s weights were never trained"
    if iterations in trained:
        return None
    return f"T={iterations} was not trained: the {network} was trained with {named_iterations(trained)}"
