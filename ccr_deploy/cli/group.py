"""The group of commands: its help, and suggestions for misspelled commands."""

from __future__ import annotations

import click

from ccr_deploy.core.suggestions import choose_from

HELP_COLUMNS = 100
"""Maximum width of help texts; click's own maximum is 80."""


class CommandGroup(click.Group):
    """A group that lists its commands in the order of a workflow."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order in which they were added; click would sort them."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by its name.

        Raises:
            UsageError: if there is no such command; the message suggests similar ones.
        """
        name = args[0]
        is_option = name.startswith("-")  # click reports an unknown option of the group itself
        if self.get_command(ctx, name) or is_option or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        # click's own suggestions depend on its release.
        raise click.UsageError(f"unknown command {name!r}: {choose_from(name, self.commands)}", ctx)
