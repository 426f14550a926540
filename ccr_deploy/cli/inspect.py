"""``ccr-deploy inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    PATH,
    bundle_option,
    echo_json,
    echo_line,
    open_bundle,
    output_options,
    print_lines,
)

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Show the metadata of an engine or payload file.")
@click.argument("file", type=PATH)
@click.option(
    "--reproduce",
    is_flag=True,
    help="Print the commands that rebuild and run the engine with the backend's own tools.",
)
@bundle_option
@output_options
def inspect(file: Path, reproduce: bool, bundle: Path, as_json: bool) -> None:
    """Show the metadata of an engine or payload file.

    FILE is an engine in the engine store, which is checked against its sidecar file, or a payload. For an
    engine, two counts of convolutions are printed: how many are quantized in the graph, and the precisions
    in which the engine executes them. The second is known only if the engine was built on a GPU.

    \b
    Examples:
      ccr-deploy inspect ENGINES/3f0c1d/encoder.int8.plan
      ccr-deploy inspect ENGINES/3f0c1d/encoder.int8.plan --reproduce --bundle bundle
    """
    from ccr_deploy.engines.sidecar import Sidecar
    from ccr_deploy.reporting.engine_lines import engine_lines
    from ccr_deploy.workflow.inspect import inspect_file
    from ccr_deploy.workflow.inspect import reproduce as commands

    found = inspect_file(file)
    if reproduce:
        if not isinstance(found, Sidecar):
            raise click.UsageError(f"{file}: is a payload: --reproduce needs an engine")
        lines = commands(found, file, open_bundle(bundle))
        if as_json:
            echo_json(lines)
            return
        for line in lines:
            echo_line(line)
    elif as_json:
        echo_json(found)
    elif isinstance(found, Sidecar):
        print_lines(*engine_lines(found))
    else:
        print_lines(
            f"payload of contract {found.contract_id}: {found.image_height}x{found.image_width} pixels, "
            f"{found.code_bytes} code bytes, CRC-32 valid"
        )
