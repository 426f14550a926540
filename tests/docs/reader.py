"""Shared parts of the tests of the pages: the reader's folder, and commands that must succeed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.docs.fences import ROOT, fences
from tests.support.cli_runner import Outcome, run

TUTORIAL = ROOT / "docs" / "tutorial.md"


@dataclass(frozen=True)
class Workspace:
    """The folder, and the output of the tutorial's commands that created its bundle."""

    folder: Path
    outcomes: dict[str, Outcome]


def tutorial_commands() -> list[str]:
    blocks = [fence for fence in fences(TUTORIAL) if fence.language == "console"]
    return [command for block in blocks for command in block.commands]


def succeeded(command: str) -> Outcome:
    """Run a ``ccr-deploy`` command, which must succeed."""
    typed, _, output_file = command.partition(" > ")
    program, *arguments = shlex.split(typed)
    assert program == "ccr-deploy", command
    outcome = run(*arguments)
    assert outcome.status == 0, f"{command}: {outcome.stderr}"
    if output_file:
        Path(output_file).write_text(outcome.stdout, encoding="utf-8")
    return outcome
