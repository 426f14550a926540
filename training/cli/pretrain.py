"""``python -m training pretrain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from training.cli.common import iterations_option, training_command

if TYPE_CHECKING:
    from training.steps import Training


@click.command(epilog="Example: python -m training pretrain --recipe photos-demo --output pretrained")
@iterations_option
@training_command("pretrain")
def pretrain(training: Training, as_json: bool) -> None:
    """Train a compressor: encoder and decoder.

    They learn to restore images from codes. finetune starts with the encoder, baseline with both.
    """
    from training import steps
    from training.cli.results import print_result

    print_result(steps.pretrain(training), as_json=as_json)
