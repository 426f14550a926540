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
    stdout_console,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.engines.sidecar import Sidecar


@click.command(short_help="Show the metadata of an engine or payload file.")
@click.argument("file", type=PATH)
@click.option(
    "--reproduce",
    is_flag=True,
    help="Print the commands that rebuild and run the engine with the backend's own tools.",
)
@click.option(
    "--kernels",
    is_flag=True,
    help="Show the compiled kernels by kind, the data types of the convolutions, and the bytes and the work "
    "per image.",
)
@click.option(
    "--gpu",
    metavar="NAME",
    help="With --kernels, add a floor for the time of the kernels on h100, l4, orin or rtx4090, from its "
    "memory bandwidth and peak rates.",
)
@bundle_option
@output_options
def inspect(file: Path, reproduce: bool, kernels: bool, gpu: str | None, bundle: Path, as_json: bool) -> None:
    """Show the metadata of an engine or payload file.

    FILE is an engine in the engine store, which is checked against its sidecar file, or a payload. For an
    engine, two counts of convolutions are printed: how many are quantized in the graph, and the precisions
    in which the engine executes them. The second is known for TensorRT-RTX, and for TensorRT if the engine
    was built on a GPU; so are the kernels.

    \b
    Examples:
      ccr-deploy inspect ENGINES/3f0c1d/encoder.int8.plan
      ccr-deploy inspect ENGINES/3f0c1d/encoder.int8.plan --kernels --gpu l4
      ccr-deploy inspect ENGINES/3f0c1d/encoder.int8.plan --reproduce --bundle bundle
    """
    from ccr_deploy.engines.sidecar import Sidecar
    from ccr_deploy.reporting.engine_lines import engine_lines
    from ccr_deploy.workflow.inspect import inspect_file
    from ccr_deploy.workflow.inspect import reproduce as commands

    if reproduce and kernels:
        raise click.UsageError("--reproduce and --kernels cannot be combined: choose one")
    if gpu is not None and not kernels:
        raise click.UsageError("--gpu needs --kernels")
    found = inspect_file(file)
    if kernels and isinstance(found, Sidecar):
        _show_kernels(found, file, gpu, as_json=as_json)
    elif reproduce and isinstance(found, Sidecar):
        lines = commands(found, file, open_bundle(bundle))
        if as_json:
            echo_json(lines)
            return
        for line in lines:
            echo_line(line)
    elif reproduce or kernels:
        option = "--reproduce" if reproduce else "--kernels"
        raise click.UsageError(f"{file}: is a payload: {option} needs an engine")
    elif as_json:
        echo_json(found)
    elif isinstance(found, Sidecar):
        print_lines(*engine_lines(found))
    else:
        print_lines(
            f"payload of contract {found.contract_id}: {found.image_height}x{found.image_width} pixels, "
            f"{found.code_bytes} code bytes, CRC-32 valid"
        )


def _show_kernels(sidecar: Sidecar, engine: Path, gpu: str | None, *, as_json: bool) -> None:
    from ccr_deploy.engines.kernels import engine_kernels
    from ccr_deploy.reporting.kernel_tables import (
        convolutions_table,
        kernels_table,
        kernels_unknown_line,
        traffic_table,
    )
    from ccr_deploy.reporting.terminal import print_table

    found = engine_kernels(sidecar, gpu)
    if as_json:
        echo_json(found)
    elif not found.profiles:
        print_lines(f"{engine}: {kernels_unknown_line(found.backend)}")
    else:
        console = stdout_console()
        for table in (kernels_table(found), traffic_table(found), convolutions_table(found)):
            print_table(console, table)
