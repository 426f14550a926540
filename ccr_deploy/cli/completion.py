"""``ccr-deploy completion``, and the values that shells complete.

A shell waits for completions each time a user presses the tab key, so nothing heavy is imported for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import click
from click.shell_completion import CompletionItem, get_completion_class

if TYPE_CHECKING:
    from collections.abc import Callable

    Completion: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

PROGRAM = "ccr-deploy"
SHELLS = ("bash", "zsh", "fish")
INSTRUCTION_VARIABLE = "_CCR_DEPLOY_COMPLETE"
"""Variable by which the scripts ask the command line for completions; click derives it from the name."""


@click.command(short_help="Print the completion script for a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the script that completes commands, options, targets, presets and files in a shell.

    \b
    Examples:
      ccr-deploy completion bash > ~/.local/share/bash-completion/completions/ccr-deploy
      ccr-deploy completion zsh > ~/.zfunc/_ccr-deploy
      ccr-deploy completion fish > ~/.config/fish/completions/ccr-deploy.fish

    Create the folder first if it does not exist, and open a new shell afterwards. bash needs version 4.4
    and the package bash-completion. For zsh, add these lines to ~/.zshrc:

    \b
      fpath+=~/.zfunc
      autoload -Uz compinit && compinit
    """
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    click.echo(shell_class(ctx.find_root().command, {}, PROGRAM, INSTRUCTION_VARIABLE).source())


def completes(values: Callable[[str], list[CompletionItem]]) -> Completion:
    """Return the function that `click` calls, from one of the incomplete word alone."""
    return lambda _, __, incomplete: values(incomplete)


def folders(incomplete: str) -> list[CompletionItem]:
    """Let the shell complete folders."""
    return [CompletionItem(incomplete, type="dir")]


def target_names(incomplete: str) -> list[CompletionItem]:
    """Return the names of shipped targets; if none fits, let the shell complete files."""
    from ccr_deploy.targets.schema import target_files

    names = [CompletionItem(name) for name in target_files() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def preset_names(incomplete: str) -> list[CompletionItem]:
    """Return the names of model presets."""
    from ccr_deploy.models.presets import PRESETS

    return [CompletionItem(name) for name in PRESETS if name.startswith(incomplete)]


def key_map_names(incomplete: str) -> list[CompletionItem]:
    """Return the names of shipped key maps; if none fits, let the shell complete files."""
    from ccr_deploy.models.key_map import key_map_files

    names = [CompletionItem(name) for name in key_map_files() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]
