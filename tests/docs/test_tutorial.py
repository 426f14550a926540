"""The tutorial's recorded output has the structure of what the commands print today."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.docs.conftest import TUTORIAL, succeeded, tutorial_commands
from tests.docs.fences import fences

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.conftest import Workspace

RECORDED_ONLY = ("python -m training.demo", "ccr-deploy benchmark")
"""What takes minutes; ``python -m scripts.record_tutorial`` runs it."""
REMEDY = "record it again: python -m scripts.record_tutorial"


def recorded() -> dict[str, str]:
    """Return each command's recorded output."""
    blocks = [fence for fence in fences(TUTORIAL) if fence.language == "console"]
    return {block.commands[0]: block.output for block in blocks}


def headings(output: str) -> list[str]:
    """Return the titles and column names of an output's tables."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    return [
        heading
        for number, line in enumerate(lines)
        if line.startswith("──")
        for heading in (*lines[max(0, number - 3) : number],)
        if heading
    ]


def beginnings(output: str) -> list[str]:
    """Return the first word of each line that is neither part of a table nor empty."""
    lines = [line.split() for line in output.splitlines() if not re.search(r"──|  +\S.*  +\S", line)]
    return [re.sub(r"\d+", "#", words[0]) for words in lines if words]


def test_every_command_has_recorded_output() -> None:
    assert len(recorded()) == len(tutorial_commands()) == 11
    assert all(output.strip() for output in recorded().values()), REMEDY


def test_recorded_tables_have_todays_columns(workspace: Workspace, reader_folder: Path) -> None:
    for command, output in recorded().items():
        if not command.startswith(RECORDED_ONLY):
            outcome = workspace.outcomes.get(command) or succeeded(command)
            assert headings(outcome.stdout) == headings(output), f"{command}: {REMEDY}"


def test_recorded_lines_begin_as_they_do_today(workspace: Workspace) -> None:
    for command, outcome in workspace.outcomes.items():
        here, there = beginnings(outcome.stdout), beginnings(recorded()[command])
        assert here[0].split("/")[-1] == there[0].split("/")[-1], f"{command}: {REMEDY}"
