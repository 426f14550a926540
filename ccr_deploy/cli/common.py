"""Arguments, options, consoles and progress bars that commands share."""

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
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ccr_deploy.cli.completion import completes, folders, target_names
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.printable import printable
from ccr_deploy.core.records import to_builtins
from ccr_deploy.core.shards import Shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.progress import Advance
    from ccr_deploy.engines.store import EngineStore

    Command = TypeVar("Command", bound=Callable[..., Any])

PIPE_WIDTH = 200
"""Maximum width of a table in a pipe, which has no width."""


@dataclass
class Invocation:
    """Settings of one run of the command line, for any command."""

    verbose: bool = False


def _set_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        invocation = ctx.find_object(Invocation)
        if invocation is not None:
            invocation.verbose = True
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")


def combined(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Combine options into one decorator; help lists them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


PATH = click.Path(path_type=Path)


def path_option(name: str, metavar: str, text: str, **settings: Any) -> Callable[[Command], Command]:  # noqa: ANN401
    """Return an option whose value is a path.

    Args:
        name: the option, as it is typed.
        metavar: placeholder of the path in the help; shells complete ``DIR`` with folders only.
        text: help text.
        settings: further arguments of `click.option`.
    """
    if metavar == "DIR":
        settings["shell_complete"] = completes(folders)
    return click.option(name, type=PATH, metavar=metavar, help=text, **settings)


output_options = combined(
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Show log messages of libraries, and tracebacks of errors.",
    ),
)
"""``--json`` and ``-v``, which every command has."""

bundle_argument = click.argument(
    "bundle", type=PATH, default="bundle", envvar="CCR_DEPLOY_BUNDLE", shell_complete=completes(folders)
)
"""``[BUNDLE]``; defaults to ``$CCR_DEPLOY_BUNDLE``, then ``./bundle``."""

bundle_option = path_option(
    "--bundle",
    "DIR",
    "Bundle folder.  [default: $CCR_DEPLOY_BUNDLE, then ./bundle]",
    default="bundle",
    envvar="CCR_DEPLOY_BUNDLE",
)
"""``--bundle DIR``, for commands whose arguments are other files; same default."""

target_option = click.option(
    "--target",
    metavar="NAME|FILE",
    shell_complete=completes(target_names),
    help="Target: a name that ccr-deploy doctor lists, or a TOML file.",
)

engines_option = path_option(
    "--engines",
    "DIR",
    "Engine store.  [default: $CCR_DEPLOY_ENGINES, then the user's cache]",
    envvar="CCR_DEPLOY_ENGINES",
)

batch_option = click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="Images or payloads per run of an engine.  [default: the target's largest size up to 8, else 4]",
)

require_verified_option = click.option(
    "--require-verified", is_flag=True, help="Refuse engines that have not passed ccr-deploy verify."
)


def _as_shard(_: click.Context, __: click.Parameter, value: str | None) -> Shard | None:
    try:
        return Shard.parse(value) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def shard_option(text: str) -> Callable[[Command], Command]:
    """Return the option ``--shard I/N`` with a help text."""
    return click.option("--shard", metavar="I/N", callback=_as_shard, help=text)


precision_options = combined(
    *(
        click.option(
            f"--{row.name}",
            "precision",
            flag_value=row.name,
            help=f"Use {row.label} engines for encoder and classifier.",
        )
        for row in PRECISIONS.values()
    )
)
"""An option for each precision, such as ``--fp32``: one precision for encoder and classifier."""

on_files_options = combined(
    batch_option, bundle_option, target_option, engines_option, require_verified_option, output_options
)
"""Options of commands that run built engines on files."""

report_option = path_option(
    "--report",
    "DIR",
    "Save the results in DIR, and update its report.md and report.html.",
)


class PlainConsole(Console):
    """A console that prints each string on one line, without markup and with control characters escaped."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 -- as rich has it
        """Print objects; strings are made printable and, if there are only strings, are not wrapped."""
        shown = (Text(printable(value)) if isinstance(value, str) else value for value in objects)
        is_text = all(isinstance(value, str) for value in objects)
        super().print(*shown, **{"soft_wrap": is_text, **options})


def stdout_console() -> Console:
    """Return a console for results; in a pipe its tables are up to `PIPE_WIDTH` wide."""
    return PlainConsole(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def print_lines(*lines: str) -> None:
    """Print the lines of a result."""
    console = stdout_console()
    for line in lines:
        console.print(line)


def graph_lines(graphs: Iterable[GraphRecord]) -> list[str]:
    """Return one line for each graph: its file name and size."""
    return [f"  {graph.file.name}  {graph.file.bytes / 1e6:.2f} MB" for graph in graphs]


def echo_line(line: str, *, err: bool = False) -> None:
    """Print one line with control characters escaped."""
    click.echo(printable(line), err=err)


def echo_json(content: object) -> None:
    """Print records, or values that JSON has, as ASCII-only JSON."""
    click.echo(json.dumps(to_builtins(content), indent=2))


def chosen_target(name: str | None, *, quiet: bool) -> str:
    """Return the target's name, or the default's, and print which it is unless `quiet`."""
    from ccr_deploy.targets.schema import load_target
    from ccr_deploy.workflow.doctor import CPU_TARGET, default_target

    chosen = name or default_target()
    target = load_target(chosen)
    if not quiet:
        why = "" if name else ", the default"
        if why and chosen == CPU_TARGET:
            why += " because no GPU target fits this machine (see ccr-deploy doctor)"
        print_lines(f"target: {chosen}{why}: {target.description}")
    return chosen


def opened(
    bundle: Path, target: str | None, engines: Path | None, *, as_json: bool, whole: bool = True
) -> tuple[Bundle, str, EngineStore]:
    """Open the bundle and the engine store, and choose the target, of a command.

    Args:
        bundle: the bundle's folder.
        target: the target's name or TOML file; None for the default target.
        engines: the engine store's folder; None for the default store.
        as_json: whether the command prints JSON, so that the target is not printed.
        whole: whether all files of the bundle must exist, not only the manifest.
    """
    from ccr_deploy.engines.store import EngineStore

    name = chosen_target(target, quiet=as_json)
    return open_bundle(bundle, whole=whole), name, EngineStore.default(engines)


def open_bundle(path: Path, *, whole: bool = True) -> Bundle:
    """Open a bundle.

    Raises:
        WrongUsageError: if the path is a file, probably a checkpoint, or there is no bundle.
        BundleError: if the bundle is damaged.
    """
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.errors import WrongUsageError

    if path.is_file():
        raise WrongUsageError(
            f"{path}: is a file, not a bundle: to export a checkpoint, "
            f"run ccr-deploy export --checkpoint {path}"
        )
    return (Bundle.open if whole else Bundle.read)(path)


def check_checkpoint_path(path: Path | None) -> None:
    """Raise WrongUsageError if a folder was given as a checkpoint."""
    from ccr_deploy.bundle.manifest import MANIFEST
    from ccr_deploy.errors import WrongUsageError

    if path and path.is_dir():
        kind = "a bundle" if (path / MANIFEST).exists() else "a folder"
        raise WrongUsageError(f"{path}: is {kind}, not a checkpoint: give a file, such as model.pt")


class RateColumn(ProgressColumn):
    """Units of a progress bar per second, over the last units; empty while it is unknown."""

    def render(self, task: Task) -> Text:
        """Return the rate."""
        return Text(f"{task.speed:.3g}/s" if task.speed else "")


class TerminalProgress:
    """Progress bars on a terminal, no output in a pipe."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Show a progress bar on stderr; yield the function that advances it."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        console = Console(file=sys.stderr)  # bound now: stages redirect sys.stderr while libraries print
        with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bars:
            task = bars.add_task(description, total=total)
            yield lambda units: bars.advance(task, units)
