"""``python -m training finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import combined, echo_line, path_option
from training.cli.common import iterations_option, training_command

if TYPE_CHECKING:
    from training.steps import Training

encoder_options = combined(
    path_option("--encoder-from", "FILE", "Compressor or encoder to start from; repeatable.", multiple=True),
    click.option("--key-map", metavar="NAME|FILE", help="Names of the tensors in files of other projects."),
)
resnet_option = click.option(
    "--resnet-from", metavar="torchvision|FILE", help="ResNet-18 to start from: ImageNet's, or a file."
)


@click.command(
    epilog="Example: python -m training finetune --recipe photos-demo "
    "--encoder-from pretrained/compressor.pt --output trained"
)
@encoder_options
@resnet_option
@iterations_option
@training_command("finetune")
def finetune(
    training: Training,
    encoder_from: tuple[Path, ...],
    key_map: str | None,
    resnet_from: str | None,
    as_json: bool,
) -> None:
    """Train encoder and classifier end to end.

    The result is a checkpoint for ccr-deploy export; it has no decoder.
    """
    from ccr_deploy.models.key_map import left_over_lines
    from training import steps
    from training.cli.results import print_result
    from training.initial_weights import encoder_weights, resnet_weights

    encoder = None
    if encoder_from:
        encoder = encoder_weights(encoder_from, key_map)
        for line in left_over_lines(encoder.left_over):
            echo_line(f"python -m training: {line}", err=True)
    resnet = resnet_weights(resnet_from) if resnet_from else None
    print_result(steps.finetune(training, encoder, resnet), as_json=as_json)
