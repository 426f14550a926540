"""Modes of a command: the option that selects each, and the options that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Options = TypeVar("Options")

_ALWAYS_ACCEPTED = frozenset({"bundle", "as_json", "verbose"})


@dataclass(frozen=True)
class Mode(Generic[Options]):
    """One way to use a command.

    `selected_by` is the option that selects it. `accepts` are the options that it accepts besides. `run`
    returns whether all is well.
    """

    selected_by: str
    accepts: frozenset[str]
    run: Callable[[Options], bool]


def chosen_mode(ctx: click.Context, modes: Sequence[Mode[Options]], default: Mode[Options]) -> Mode[Options]:
    """Return the mode that the options on the command line select.

    Args:
        ctx: context of the command.
        modes: modes that an option selects; the first of them if there are several.
        default: mode without such an option.

    Raises:
        UsageError: if an option was given that the mode does not accept.
    """
    given = {
        str(parameter.name): parameter
        for parameter in ctx.command.params
        if ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    }
    mode = next((mode for mode in modes if mode.selected_by in given), default)
    accepted = mode.accepts | {mode.selected_by} | _ALWAYS_ACCEPTED
    if unused := [parameter for name, parameter in given.items() if name not in accepted]:
        if unused[0].name == "results":
            raise click.UsageError(f"got {1 + len(ctx.params['results'])} bundles, expected one")
        names = [max(parameter.opts, key=len) for parameter in unused]
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        selected = ctx.info_name if mode is default else f"--{mode.selected_by.replace('_', '-')}"
        raise click.UsageError(
            f"{selected} does not accept {listed}: omit {'it' if len(names) == 1 else 'them'}"
        )
    return mode
