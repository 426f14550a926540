"""The command line: every command parses arguments, calls a function and prints its result.

Exit status: 0 success, 1 a check failed, 2 wrong usage, 3 any other error, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

from ccr_deploy import __version__
from ccr_deploy.cli.benchmark import benchmark
from ccr_deploy.cli.build_engine import build_engine
from ccr_deploy.cli.calibrate import calibrate
from ccr_deploy.cli.classify import classify
from ccr_deploy.cli.common import Invocation, echo_line
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
from ccr_deploy.errors import CcrDeployError

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM
LONGEST_LINE = 5000
"""Characters of an error that are shown: a path may have 4,096, a field of a damaged file any number."""


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
    """Run the command line; report every error as one line with an exit status."""
    if os.getpid() == 1:  # in a container: the kernel discards SIGTERM for process 1 unless it has a handler
        signal.signal(signal.SIGTERM, _end)
    invocation = Invocation()
    try:
        status = cli.main(prog_name=PROGRAM, standalone_mode=False, obj=invocation)
    except click.ClickException as error:
        _show_usage(error)
        status = 2
    except CcrDeployError as error:
        status = _report(str(error), error.exit_status, invocation)
    except (click.Abort, KeyboardInterrupt):
        click.echo("ccr-deploy: interrupted: no file is left incomplete", err=True)
        status = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # otherwise Python reports the error again when it closes stdout
        status = 3
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status = _report(f"{where}{error.strerror or error}", 3, invocation)
    except Exception as error:  # a defect: users get one line, developers a traceback with -v
        message = (
            f"unexpected {type(error).__name__}: {error}: run the command again with -v for the traceback"
        )
        status = _report(" ".join(message.split()), 3, invocation)
    sys.exit(status if isinstance(status, int) else 0)


def _end(_: int, __: FrameType | None) -> NoReturn:
    """Exit immediately; not by an exception, which a library might catch."""
    os._exit(TERMINATED)


def _show_usage(error: click.ClickException) -> None:
    # Its message is the help. click before 8.2 does not have it: it prints the help by itself.
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()
        return
    if isinstance(error, click.UsageError) and error.ctx:
        click.echo(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n", err=True)
    # Some messages of click have several lines, for example the choices of a missing option.
    echo_line(f"Error: {' '.join(error.format_message().split())}", err=True)


def _report(message: str, status: int, invocation: Invocation) -> int:
    if invocation.verbose:
        for line in traceback.format_exc().splitlines():
            echo_line(line, err=True)
    shown = message if len(message) <= LONGEST_LINE else f"{message[:LONGEST_LINE]}…"
    echo_line(f"ccr-deploy: error: {shown}", err=True)
    return status
