"""Every help text fits a screen of 100 columns and 40 rows."""

from __future__ import annotations

import re

import pytest

from ccr_deploy.cli import cli
from tests.support.cli_runner import run

COLUMNS, ROWS = 100, 40
PAGES = [(), *((name,) for name in cli.commands)]


def help_lines(*arguments: str) -> list[str]:
    shown = run(*arguments, "--help")
    assert (shown.status, shown.stderr) == (0, "")
    return shown.stdout.splitlines()


@pytest.mark.parametrize("arguments", PAGES, ids=lambda arguments: " ".join(arguments) or "ccr-deploy")
def test_the_help_fits_a_screen(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    lines = help_lines(*arguments)
    assert len(lines) < ROWS  # one row is the prompt's
    assert max(map(len, lines)) <= COLUMNS


@pytest.mark.parametrize("arguments", PAGES, ids=lambda arguments: " ".join(arguments) or "ccr-deploy")
def test_the_help_has_an_example(arguments: tuple[str, ...]) -> None:
    example = " ".join(("ccr-deploy", *arguments))
    assert re.search(rf"Examples?:\n +{example}", "\n".join(help_lines(*arguments)))


@pytest.mark.parametrize("columns", [80, 100])
def test_the_list_of_commands_is_not_cut(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_lines()
    listed = lines[lines.index("Commands:") + 1 :]
    assert [line.split()[0] for line in listed] == list(cli.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_has_a_help_text(name: str) -> None:
    for option in cli.commands[name].params:
        if option.param_type_name == "option":
            assert getattr(option, "help", None), option.name
