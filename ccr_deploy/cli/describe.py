"""``ccr-deploy describe``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import echo_json, output_options, path_option, stdout_console

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option("--preset", metavar="NAME", help="ccr-baseline, ccr-layer1, ccr-layer2, ccr-layer3 or demo.")
@path_option("--checkpoint", "FILE", "A checkpoint.")
@output_options
def describe(preset: str | None, checkpoint: Path | None, as_json: bool) -> None:
    """What a model is made of and what it costs.

    Without options: a row for each of the paper's models. With a preset or checkpoint: its layers.

    \b
    Examples:
      ccr-deploy describe
      ccr-deploy describe --preset ccr-layer1
      ccr-deploy describe --checkpoint model.pt --preset ccr-layer2    (a bare state dict)
    """
    from ccr_deploy.export.description import describe_model
    from ccr_deploy.models.checkpoint import load_checkpoint
    from ccr_deploy.models.presets import PAPER_PRESETS
    from ccr_deploy.models.presets import preset as find_preset
    from ccr_deploy.reporting.tables import description_table, layer_table
    from ccr_deploy.reporting.terminal import print_table

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
