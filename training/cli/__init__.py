"""The command line of the trainings."""

from __future__ import annotations

import click

from ccr_deploy.cli.command_line import run_command_line
from ccr_deploy.cli.group import HELP_COLUMNS, CommandGroup
from training.cli.baseline import baseline
from training.cli.evaluate import evaluate
from training.cli.finetune import finetune
from training.cli.pretrain import pretrain
from training.cli.qat import qat

PROGRAM = "python -m training"


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS},
)
def cli() -> None:
    r"""Train checkpoints for ccr-deploy.

    \b
    Example, with ImageNet-100 in imagenet/train and imagenet/val:
      python -m training pretrain --recipe imagenet100-layer1 --data imagenet --output pretrained
      python -m training finetune --recipe imagenet100-layer1 --data imagenet --output layer1 \
                                  --encoder-from pretrained/compressor.pt
      python -m training evaluate --data imagenet --output report layer1
      ccr-deploy export --checkpoint layer1/checkpoint.pt

    \b
    A training that was interrupted continues if the same command is run again.

    \b
    Exit status:
      0 success, 1 a check failed, 2 wrong usage, 3 any other error, 130 interrupted
    """


for _command in (pretrain, finetune, baseline, evaluate, qat):
    cli.add_command(_command)


def main() -> None:
    """Run the command line of the trainings."""
    run_command_line(cli, PROGRAM)
