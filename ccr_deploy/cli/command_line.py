"""Run a command line: every error is one line with an exit status."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

from ccr_deploy.cli.common import Invocation, echo_line
from ccr_deploy.errors import CcrDeployError

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM
LONGEST_LINE = 5000
"""Characters of an error that are shown: a path may have 4,096, a field of a damaged file any number."""


def run_command_line(commands: click.Group, program: str, hint: str = "") -> NoReturn:
    """Run a command and exit; report every error as one line with an exit status.

    Args:
        commands: the group of commands.
        program: how it is called, for usage and error messages.
        hint: what to do after Ctrl-C; empty if nothing is left to do.
    """
    if os.getpid() == 1:  # in a container: the kernel discards SIGTERM for process 1 unless it has a handler
        signal.signal(signal.SIGTERM, _end)
    invocation = Invocation()
    try:
        status = commands.main(prog_name=program, standalone_mode=False, obj=invocation)
    except click.ClickException as error:
        _show_usage(error)
        status = 2
    except CcrDeployError as error:
        status = _report(program, str(error), error.exit_status, invocation)
    except (click.Abort, KeyboardInterrupt):
        after = f"; {hint}" if hint else ""
        click.echo(f"{program}: interrupted: no file is left incomplete{after}", err=True)
        status = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # otherwise Python reports the error again when it closes stdout
        status = 3
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status = _report(program, f"{where}{error.strerror or error}", 3, invocation)
    except Exception as error:  # a defect: users get one line, developers a traceback with -v
        message = (
            f"unexpected {type(error).__name__}: {error}: run the command again with -v for the traceback"
        )
        status = _report(program, " ".join(message.split()), 3, invocation)
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


def _report(program: str, message: str, status: int, invocation: Invocation) -> int:
    if invocation.verbose:
        for line in traceback.format_exc().splitlines():
            echo_line(line, err=True)
    shown = message if len(message) <= LONGEST_LINE else f"{message[:LONGEST_LINE]}…"
    echo_line(f"{program}: error: {shown}", err=True)
    return status
