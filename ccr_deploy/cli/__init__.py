"""The command line: every command parses, calls and prints; the work is done elsewhere.

Exit status: 0 done, 1 a check failed, 2 wrong usage, 3 something broke, 130 interrupted.
"""

from __future__ import annotations

import io
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
from ccr_deploy.cli.describe import describe
from ccr_deploy.cli.doctor import doctor
from ccr_deploy.cli.encode import encode
from ccr_deploy.cli.export import export
from ccr_deploy.cli.inspect import inspect
from ccr_deploy.cli.package import package
from ccr_deploy.cli.serve import serve
from ccr_deploy.cli.verify import verify
from ccr_deploy.core.printable import printable
from ccr_deploy.errors import CcrDeployError

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM
LONGEST_LINE = 5000
"""Of an error: a path may take 4,096 bytes, a damaged field anything."""


class _InOrder(click.Group):
    """Lists its commands in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ccr-deploy")
def cli() -> None:
    """From a trained compression-and-recognition checkpoint to fast, proven engines.

    \b
    ccr-deploy export --checkpoint model.pt    writes ./bundle
    ccr-deploy calibrate --images train/       adds INT8 graphs
    ccr-deploy build-engine --int8             builds engines for this machine
    ccr-deploy verify                          proves that they answer as the checkpoint did
    ccr-deploy benchmark                       measures how much faster they are

    Exit status: 0 done, 1 a check failed, 2 wrong usage, 3 something broke, 130 interrupted.
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
):
    cli.add_command(_command)


def main() -> None:
    """The entry point: turns every error into one line and an exit status."""
    if os.getpid() == 1:  # in a container: the kernel keeps SIGTERM from a first process without a handler
        signal.signal(signal.SIGTERM, _end)
    invocation = Invocation()
    try:
        status = cli.main(prog_name="ccr-deploy", standalone_mode=False, obj=invocation)
    except click.ClickException as error:
        _show_usage(error)
        status = 2
    except CcrDeployError as error:
        status = _report(str(error), error.exit_status, invocation)
    except (click.Abort, KeyboardInterrupt):
        click.echo("ccr-deploy: interrupted: nothing was changed that was not already complete", err=True)
        status = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # or Python complains once more while it closes stdout
        status = 3
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status = _report(f"{where}{error.strerror or error}", 3, invocation)
    except Exception as error:  # the last resort of a command line
        message = f"unexpected {type(error).__name__}: {error}; run it again with -v for the traceback"
        status = _report(" ".join(message.split()), 3, invocation)
    sys.exit(status if isinstance(status, int) else 0)


def _end(_: int, __: FrameType | None) -> NoReturn:
    """End as soon as Python runs again, without an exception, which a library might catch."""
    os._exit(TERMINATED)


def _show_usage(error: click.ClickException) -> None:
    text = io.StringIO()
    error.show(file=text)
    for line in text.getvalue().replace(error.message, printable(error.message)).splitlines():
        echo_line(line, err=True)


def _report(message: str, status: int, invocation: Invocation) -> int:
    if invocation.verbose:
        for line in traceback.format_exc().splitlines():
            echo_line(line, err=True)
    shown = message if len(message) <= LONGEST_LINE else f"{message[:LONGEST_LINE]}…"
    echo_line(f"ccr-deploy: error: {shown}", err=True)
    return status
