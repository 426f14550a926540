"""``python -m training pretrain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from training.cli.common import training_command

if TYPE_CHECKING:
    from training.steps import Training


@click.command(epilog="Example: python -m training pretrain --recipe photos-demo --output pretrained")
@training_command("pretrain")
def pretrain(training: Training, as_json: bool) -> None:
    """Train encoder, binarizer and decoder to compress and restore images."""
    from training import steps
    from training.cli.results import print_result

    print_result(steps.pretrain(training), as_json=as_json)
