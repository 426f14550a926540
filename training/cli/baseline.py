"""``python -m training baseline``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import path_option
from training.cli.common import training_command
from training.cli.finetune import resnet_option

if TYPE_CHECKING:
    from training.steps import Training


@click.command(
    epilog="Example: python -m training baseline --recipe photos-demo --compressor pretrained/compressor.pt "
    "--output baseline"
)
@path_option("--compressor", "FILE", "Compressor to start from, as pretrain writes it.")
@resnet_option
@training_command("baseline")
def baseline(training: Training, compressor: Path | None, resnet_from: str | None, as_json: bool) -> None:
    """Train the conventional chain end to end.

    It compresses and restores an image, and recognizes the restored image.
    """
    from ccr_deploy.models.compressor_file import load_compressor
    from training import steps
    from training.cli.results import print_result
    from training.initial_weights import resnet_weights

    started_from = load_compressor(compressor) if compressor else None
    resnet = resnet_weights(resnet_from) if resnet_from else None
    print_result(steps.baseline(training, started_from, resnet), as_json=as_json)
