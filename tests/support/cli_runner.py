"""Run the command line inside the test's process and return what a shell would see."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest.mock import patch

from ccr_deploy.cli import main


@dataclass(frozen=True)
class Outcome:
    """Exit status, stdout and stderr of a command."""

    status: int
    stdout: str
    stderr: str

    @property
    def error_line(self) -> str:
        """The text on stderr, which must be one line."""
        lines = self.stderr.strip().splitlines()
        assert len(lines) == 1, self.stderr
        return lines[0]


def run(*arguments: object) -> Outcome:
    """Run ``ccr-deploy ARGUMENTS``."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        patch.object(sys, "argv", ["ccr-deploy", *(str(argument) for argument in arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return Outcome(status, out.getvalue(), err.getvalue())
