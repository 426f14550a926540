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
from ccr_deploy.core.records import to_builtins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ccr_deploy.benchmarking.results import BenchmarkReport
    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.progress import Advance
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.reporting.table import Table
    from ccr_deploy.verification.results import VerificationReport

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


def _together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator; help shows them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


PATH = click.Path(path_type=Path)


def path_option(name: str, metavar: str, text: str, **settings: Any) -> Callable[[Command], Command]:  # noqa: ANN401
    """An option that takes a file or folder.

    Args:
        name: the option.
        metavar: what stands for the path in the help.
        text: what the path is for.
        settings: others of `click.option`.
    """
    return click.option(name, type=PATH, metavar=metavar, help=text, **settings)


output_options = _together(
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Show the traceback of an error, and what libraries log.",
    ),
)
"""``--json``, the result for machines, and ``-v``: every command has them."""

bundle_argument = click.argument("bundle", type=PATH, default="bundle", envvar="CCR_DEPLOY_BUNDLE")
"""``[BUNDLE]``, by default ``$CCR_DEPLOY_BUNDLE`` or ``./bundle``."""

bundle_option = path_option(
    "--bundle",
    "DIR",
    "Bundle.  [default: $CCR_DEPLOY_BUNDLE, then ./bundle]",
    default="bundle",
    envvar="CCR_DEPLOY_BUNDLE",
)
"""``--bundle DIR``, for commands whose arguments are files, with the same default."""

target_option = click.option("--target", metavar="NAME|FILE", help="Target's name or TOML file.")

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
    help="Images or payloads in one run of an engine.  [default: the target's most common batch, else 4]",
)

precision_options = _together(
    *(
        click.option(
            f"--{row.name}",
            "precision",
            flag_value=row.name,
            help=f"{row.label} engines for encoder and classifier.",
        )
        for row in PRECISIONS.values()
    )
)
"""``--fp32`` and so on: one precision for encoder and classifier."""

on_files_options = _together(batch_option, bundle_option, target_option, engines_option, output_options)
"""For commands that run built engines on files."""

report_option = path_option(
    "--report",
    "DIR",
    "Also write the result into DIR and draw report.md and report.html from all results there.",
)


class PlainConsole(Console):
    """A console that shows each text on one line and as it is, whatever a file's name or field holds."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 -- as rich has it
        """Print; see `printable`. A text alone is not broken at the console's width."""
        shown = (Text(printable(value)) if isinstance(value, str) else value for value in objects)
        is_text = all(isinstance(value, str) for value in objects)
        super().print(*shown, **{"soft_wrap": is_text, **options})


def stdout_console() -> Console:
    """The console for results."""
    return PlainConsole(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def print_lines(*lines: str) -> None:
    """Print a result's lines."""
    console = stdout_console()
    for line in lines:
        console.print(line)


def graph_lines(graphs: Iterable[GraphRecord]) -> list[str]:
    """Return a line for each graph: its file and size."""
    return [f"  {graph.file.name}  {graph.file.bytes / 1e6:.2f} MB" for graph in graphs]


def echo_line(line: str, *, err: bool = False) -> None:
    """Print one line as it is, whatever a file's name or field holds."""
    click.echo(printable(line), err=err)


def echo_json(content: object) -> None:
    """Print JSON in ASCII alone: of records, or of what JSON has."""
    click.echo(json.dumps(to_builtins(content), indent=2))


def chosen_target(name: str | None, *, quiet: bool) -> str:
    """The named target, or the default, which is told unless `quiet`: never a silent fall-back."""
    from ccr_deploy.targets.schema import load_target
    from ccr_deploy.workflow.doctor import CPU_TARGET, default_target

    chosen = name or default_target()
    target = load_target(chosen)
    if not quiet:
        why = "" if name else ", the default"
        if why and chosen == CPU_TARGET:
            why += " where no GPU's target fits (see ccr-deploy doctor)"
        print_lines(f"target: {chosen}{why}: {target.description}")
    return chosen


def opened(
    bundle: Path, target: str | None, engines: Path | None, *, as_json: bool, whole: bool = True
) -> tuple[Bundle, str, EngineStore]:
    """Open what a command works on: the bundle, the target's name, the engine store.

    Args:
        bundle: its folder.
        target: as the user named it.
        engines: the store's folder, if the user named one.
        as_json: whether the target is not told.
        whole: whether all of the bundle's files must be there, not only its manifest.
    """
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

    name = chosen_target(target, quiet=as_json)
    read = Bundle.open if whole else Bundle.read
    return read(bundle), name, EngineStore.default(engines)


def show_tables(
    result: BenchmarkReport | VerificationReport,
    tables: Sequence[Table],
    report: Path | None,
    *,
    as_json: bool,
    with_summary: bool = False,
) -> None:
    """Print a result, and add it to the report's folder.

    Args:
        result: what was found.
        tables: the same for people.
        report: the folder, if the user wants a report.
        as_json: whether machines read what is printed.
        with_summary: whether the report's summary is printed too.
    """
    from ccr_deploy.reporting.terminal import print_table, print_warnings
    from ccr_deploy.workflow.report_folder import add_to_folder

    console = stdout_console()
    if as_json:
        echo_json(result)
    else:
        print_warnings(console, result.warnings)
        for table in tables:
            print_table(console, table)
    summary = add_to_folder(report, result) if report else None
    if report and not as_json:
        if summary and with_summary:
            print_table(console, summary)
        console.print(f"report: {report / 'report.html'}")


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
