"""``ccr-deploy inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    bundle_option,
    echo_json,
    echo_line,
    json_option,
    stdout_console,
    verbose_option,
)
from ccr_deploy.core.records import to_builtins

if TYPE_CHECKING:
    from rich.console import Console

    from ccr_deploy.codec.payload import PayloadHeader
    from ccr_deploy.engines.sidecar import Sidecar


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--reproduce",
    is_flag=True,
    help="Print the trtexec and polygraphy commands that build and run the engine.",
)
@bundle_option
@json_option
@verbose_option
def inspect(file: Path, reproduce: bool, bundle: Path, as_json: bool) -> None:
    """Show what an engine or a payload is.

    An engine is checked against its sidecar first. Of its convolutions two things are told: how many are
    quantized in the graph, and in which precision the engine executes them, where a GPU let the engine be
    read when it was built.

    \b
    Examples:
      ccr-deploy inspect ENGINES/3f0c1d/encoder.int8.plan
      ccr-deploy inspect ENGINES/3f0c1d/encoder.int8.plan --reproduce --bundle bundle
    """
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.workflow.inspect import inspect_file
    from ccr_deploy.workflow.inspect import reproduce as commands

    found = inspect_file(file)
    console = stdout_console()
    if reproduce:
        if found.engine is None:
            raise click.UsageError(f"{file}: a payload, which nothing builds: --reproduce is for engines")
        lines = commands(found.engine, file, Bundle.open(bundle))
        if as_json:
            echo_json(lines)
            return
        for line in lines:
            echo_line(line)
    elif found.engine:
        _show_engine(console, found.engine, as_json)
    elif found.payload:
        _show_payload(console, found.payload, as_json)


def _show_engine(console: Console, sidecar: Sidecar, as_json: bool) -> None:
    from ccr_deploy.reporting.engine_lines import engine_lines

    if as_json:
        echo_json(to_builtins(sidecar))
        return
    for line in engine_lines(sidecar):
        console.print(line, markup=False, soft_wrap=True)


def _show_payload(console: Console, header: PayloadHeader, as_json: bool) -> None:
    if as_json:
        echo_json(to_builtins(header))
        return
    console.print(
        f"payload of contract {header.contract_id}: {header.image_height}x{header.image_width} pixels, "
        f"{header.code_bytes} code bytes, CRC-32 right",
        markup=False,
    )
