"""The commands as the site's reference shows them, for mkdocs-click: their help texts as Markdown."""

from __future__ import annotations

import copy
from textwrap import dedent

import click

from ccr_deploy.cli import cli

OPTIONS_WIDTH = 96
UNWRAPPED = 10_000
"""Wide enough that a paragraph of prose is one line, and a block that is not wrapped is several."""


def documented(command: click.Command) -> click.Command:
    """Return a copy of a command, and of its own commands, whose help text is Markdown."""
    shown = copy.copy(command)
    shown.help = _help_as_markdown(command)
    shown.epilog = None
    shown.context_settings = {**command.context_settings, "terminal_width": OPTIONS_WIDTH}
    if isinstance(command, click.Group):
        assert isinstance(shown, click.Group)
        shown.commands = {name: documented(own) for name, own in command.commands.items()}
    return shown


def _help_as_markdown(command: click.Command) -> str:
    """Return what ``--help`` prints above and below the options, with examples as blocks of code."""
    context = click.Context(command, info_name=command.name)
    formatter = click.HelpFormatter(width=UNWRAPPED, max_width=UNWRAPPED)
    command.format_help_text(context, formatter)
    command.format_epilog(context, formatter)
    paragraphs = dedent(formatter.getvalue()).strip("\n").split("\n\n")
    return "\n\n".join(_as_markdown(paragraph) for paragraph in paragraphs)


def _as_markdown(paragraph: str) -> str:
    heading, *lines = paragraph.splitlines()
    if not lines:
        return paragraph.strip()
    if heading.rstrip().endswith(":"):
        block = dedent("\n".join(lines))
        return f"{heading.strip()}\n\n```text\n{block}\n```"
    return f"```text\n{dedent(paragraph)}\n```"


COMMANDS = documented(cli)
