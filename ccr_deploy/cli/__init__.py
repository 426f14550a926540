"""The command line: every command parses arguments, calls a function and prints its result.

Exit status: 0 success, 1 a check failed, 2 wrong usage, 3 any other error, 130 interrupted.
"""

from __future__ import annotations

import click

from ccr_deploy import __version__
from ccr_deploy.cli.benchmark import benchmark
from ccr_deploy.cli.build_engine import build_engine
from ccr_deploy.cli.calibrate import calibrate
from ccr_deploy.cli.classify import classify
from ccr_deploy.cli.command_line import run_command_line
from ccr_deploy.cli.completion import PROGRAM, completion
from ccr_deploy.cli.describe import describe
from ccr_deploy.cli.doctor import doctor
from ccr_deploy.cli.encode import encode
from ccr_deploy.cli.export import export
from ccr_deploy.cli.group import HELP_COLUMNS, CommandGroup
from ccr_deploy.cli.inspect import inspect
from ccr_deploy.cli.package import package
from ccr_deploy.cli.serve import serve
from ccr_deploy.cli.verify import verify


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS},
)
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """Build, verify and serve engines for recurrent image-compression and recognition models.

    \b
    Example:
      ccr-deploy export --checkpoint model.pt    write a bundle to ./bundle
      ccr-deploy calibrate --images train/       add INT8 graphs to the bundle
      ccr-deploy build-engine --int8             build engines for this machine
      ccr-deploy verify                          compare the engines with the checkpoint
      ccr-deploy benchmark                       measure the speed-up over PyTorch

    \b
    Exit status:
      0 success, 1 a check failed, 2 wrong usage, 3 any other error, 130 interrupted
    """


for _command in (
    describe,
    export,
    calibrate,
    build_engine,
    verify,
    benchmark,
    encode,
    classify,
    serve,
    package,
    inspect,
    doctor,
    completion,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line of the package."""
    run_command_line(cli, PROGRAM)
