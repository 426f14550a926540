"""``ccr-deploy describe``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    check_checkpoint_path,
    echo_json,
    output_options,
    path_option,
    stdout_console,
)
from ccr_deploy.cli.completion import completes, preset_names

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Show the layers, parameters and compute cost of a model.")
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=completes(preset_names),
    help="One of ccr-baseline, ccr-layer1, ccr-layer2, ccr-layer3 and demo.",
)
@path_option("--checkpoint", "FILE", "Trained checkpoint.")
@output_options
def describe(preset: str | None, checkpoint: Path | None, as_json: bool) -> None:
    """Show the layers, parameters and compute cost of a model.

    Without options, compare the presets of the paper's models. With --preset or --checkpoint, list the
    layers of that model too. A state dict without a configuration needs both options.

    \b
    Examples:
      ccr-deploy describe
      ccr-deploy describe --preset ccr-layer1
      ccr-deploy describe --checkpoint model.pt --preset ccr-layer2
    """
    from ccr_deploy.export.description import describe_model
    from ccr_deploy.models.checkpoint import load_checkpoint
    from ccr_deploy.models.presets import PAPER_PRESETS
    from ccr_deploy.models.presets import preset as find_preset
    from ccr_deploy.reporting.tables import description_table, layer_table
    from ccr_deploy.reporting.terminal import print_table

    check_checkpoint_path(checkpoint)
    if checkpoint:
        loaded = load_checkpoint(checkpoint, preset)
        descriptions = [describe_model(str(checkpoint), loaded.config, loaded.trained_iterations)]
    elif preset:
        descriptions = [describe_model(preset, find_preset(preset))]
    else:
        descriptions = [describe_model(name, find_preset(name)) for name in PAPER_PRESETS]
    if as_json:
        echo_json(descriptions)
        return
    console = stdout_console()
    print_table(console, description_table(descriptions))
    if checkpoint or preset:
        print_table(console, layer_table(descriptions[0]))
