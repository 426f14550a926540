"""The tutorial's recorded output has the structure of what the commands print today."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.docs.fences import fences
from tests.docs.reader import TUTORIAL, succeeded, tutorial_commands

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.reader import Workspace

RECORDED_ONLY = ("python -m training.demo", "ccr-deploy benchmark")
"""What takes minutes; ``python -m scripts.record_tutorial`` runs it."""
REMEDY = "record it again: python -m scripts.record_tutorial"


def recorded() -> dict[str, str]:
    """Return each command's recorded output."""
    blocks = [fence for fence in fences(TUTORIAL) if fence.language == "console"]
    return {block.commands[0]: block.output for block in blocks}


def headings(output: str) -> list[str]:
    """Return the titles and column names of an output's tables."""
    lines = [re.sub(r"\d+ images", "# images", " ".join(line.split())) for line in output.splitlines()]
    return [
        heading
        for number, line in enumerate(lines)
        if line.startswith("──")
        for heading in (*lines[max(0, number - 3) : number],)
        if heading
    ]


def skeleton(output: str) -> list[str]:
    """Return an output's lines without its hashes and numbers."""
    lines = [re.sub(r"\b[0-9a-f]{12,}\b", "#", line) for line in output.strip().splitlines()]
    return [re.sub(r"\d+(?:[.x]\d+)*", "#", line) for line in lines]


def test_every_command_has_recorded_output() -> None:
    assert len(recorded()) == len(tutorial_commands()) == 11
    assert all(output.strip() for output in recorded().values()), REMEDY


def test_recorded_tables_have_the_current_columns(workspace: Workspace, reader_folder: Path) -> None:
    for command, output in recorded().items():
        if not command.startswith(RECORDED_ONLY):
            outcome = workspace.outcomes.get(command) or succeeded(command)
            assert headings(outcome.stdout) == headings(output), f"{command}: {REMEDY}"


def test_recorded_lines_of_export_and_encode_are_current(workspace: Workspace, reader_folder: Path) -> None:
    for command, output in recorded().items():
        if command.startswith(("ccr-deploy export", "ccr-deploy encode")):
            outcome = workspace.outcomes.get(command) or succeeded(command)
            assert skeleton(outcome.stdout) == skeleton(output), f"{command}: {REMEDY}"
