"""What commands have in common: arguments, options, consoles, progress."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ccr_deploy.core.progress import Advance

    Command = TypeVar("Command", bound=Callable[..., Any])

PIPE_WIDTH = 200
"""In a pipe tables are as wide as they need, up to this."""


@dataclass
class Invocation:
    """What one call of the command line was asked for."""

    verbose: bool = False


def _set_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        invocation = ctx.find_object(Invocation)
        if invocation is not None:
            invocation.verbose = True
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")


def verbose_option(command: Command) -> Command:
    """``-v``: the traceback of an error, and what libraries log."""
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Show the traceback of an error, and what libraries log.",
    )(command)


def json_option(command: Command) -> Command:
    """``--json``: the result for machines."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def bundle_argument(command: Command) -> Command:
    """``[BUNDLE]``, by default ``$CCR_DEPLOY_BUNDLE`` or ``./bundle``."""
    return click.argument(
        "bundle", type=click.Path(path_type=Path), default="bundle", envvar="CCR_DEPLOY_BUNDLE"
    )(command)


def bundle_option(command: Command) -> Command:
    """``--bundle DIR``, for commands whose arguments are files, with the same default."""
    return click.option(
        "--bundle",
        type=click.Path(path_type=Path),
        default="bundle",
        envvar="CCR_DEPLOY_BUNDLE",
        metavar="DIR",
        help="Bundle.  [default: $CCR_DEPLOY_BUNDLE, then ./bundle]",
    )(command)


def target_option(command: Command) -> Command:
    """``--target NAME-or-path``."""
    return click.option("--target", metavar="NAME|FILE", help="Target's name or TOML file.")(command)


def batch_option(command: Command) -> Command:
    """``--batch N``, for commands that run engines on files."""
    return click.option(
        "--batch",
        type=click.IntRange(1, 4096),
        metavar="N",
        help="Images or payloads in one run of an engine.  [default: the target's most common batch, else 4]",
    )(command)


def precision_options(command: Command) -> Command:
    """``--fp32`` and so on: one precision for encoder and classifier."""
    for row in reversed([*PRECISIONS.values()]):
        text = f"{row.label} engines for encoder and classifier."
        command = click.option(f"--{row.name}", "precision", flag_value=row.name, help=text)(command)
    return command


def engines_option(command: Command) -> Command:
    """``--engines DIR``."""
    return click.option(
        "--engines",
        type=click.Path(path_type=Path),
        envvar="CCR_DEPLOY_ENGINES",
        metavar="DIR",
        help="Engine store.  [default: $CCR_DEPLOY_ENGINES, then the user's cache]",
    )(command)


def report_option(command: Command) -> Command:
    """``--report DIR``."""
    return click.option(
        "--report",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Also write the result into DIR and draw report.md and report.html from all results there.",
    )(command)


class PlainConsole(Console):
    """A console that shows each text on one line and as it is, whatever a file's name or field holds."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 -- as rich has it
        """Print; see `printable`."""
        shown = (Text(printable(value)) if isinstance(value, str) else value for value in objects)
        super().print(*shown, **options)


def stdout_console() -> Console:
    """The console for results."""
    return PlainConsole(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def echo_line(line: str, *, err: bool = False) -> None:
    """Print one line as it is, whatever a file's name or field holds."""
    click.echo(printable(line), err=err)


def echo_json(content: object) -> None:
    """Print JSON in ASCII alone."""
    click.echo(json.dumps(content, indent=2))


def chosen_target(name: str | None, console: Console | None) -> str:
    """The named target, or the default, which the console is told: never a silent fall-back."""
    from ccr_deploy.targets.schema import load_target
    from ccr_deploy.workflow.doctor import CPU_TARGET, default_target

    chosen = name or default_target()
    target = load_target(chosen)
    if console:
        why = "" if name else ", the default"
        if why and chosen == CPU_TARGET:
            why += " where no GPU's target fits (see ccr-deploy doctor)"
        console.print(f"target: {chosen}{why}: {target.description}", markup=False, soft_wrap=True)
    return chosen


class TerminalProgress:
    """Progress bars on a terminal; nothing in a pipe."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """A bar on stderr."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(file=sys.stderr)  # held fast: stages redirect what libraries print
        with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bars:
            task = bars.add_task(description, total=total)
            yield lambda units: bars.advance(task, units)
