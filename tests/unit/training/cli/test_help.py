from __future__ import annotations

import pytest
from click.testing import CliRunner

from ccr_deploy.cli.group import HELP_COLUMNS
from training.cli import cli

ROWS = 50


@pytest.mark.parametrize("command", ["", *cli.commands])
def test_help_fits_a_terminal_and_shows_no_markup(command: str) -> None:
    arguments = [command, "--help"] if command else ["--help"]
    result = CliRunner().invoke(cli, arguments, terminal_width=HELP_COLUMNS)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) <= ROWS
    assert max(map(len, lines)) <= HELP_COLUMNS
    assert "\b" not in result.output
    assert "\\b" not in result.output


def test_the_list_of_commands_is_not_cut() -> None:
    output = CliRunner().invoke(cli, ["--help"], terminal_width=HELP_COLUMNS).output
    assert "..." not in output.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("command", "has_it"), [("pretrain", True), ("finetune", True), ("baseline", False), ("qat", False)]
)
def test_only_trainings_of_several_t_have_iterations(command: str, has_it: bool) -> None:
    output = CliRunner().invoke(cli, [command, "--help"]).output
    assert ("--iterations" in output) == has_it
