"""The command line of the trainings."""

from __future__ import annotations

import sys

import click

from ccr_deploy.cli.command_line import INTERRUPTED, run_command_line
from ccr_deploy.cli.group import HELP_COLUMNS, CommandGroup
from ccr_deploy.errors import TrainingError, WrongUsageError
from training.cli.baseline import baseline
from training.cli.evaluate import evaluate
from training.cli.finetune import finetune
from training.cli.pretrain import pretrain
from training.cli.qat import qat
from training.loop.options import process_number

PROGRAM = "python -m training"


class TrainingGroup(CommandGroup):
    """Commands that may run in several processes.

    All processes of a training have the same wrong option or loss: the first one alone reports it. What may
    be wrong in one process alone, such as an image, is reported by that one.
    """

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; end other processes than the first one without a message."""
        try:
            return super().invoke(ctx)
        except (WrongUsageError, TrainingError) as error:
            if process_number() == 0:
                raise
            sys.exit(error.exit_status)
        except KeyboardInterrupt:
            if process_number() == 0:
                raise
            sys.exit(INTERRUPTED)


@click.group(
    cls=TrainingGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS},
)
def cli() -> None:
    """Train checkpoints for ccr-deploy.

    \b
    Example, with ImageNet-100 in imagenet/train and imagenet/val:
      R="--recipe imagenet100-layer1 --data imagenet"
      python -m training pretrain $R --output pretrained
      python -m training finetune $R --encoder-from pretrained/compressor.pt --output layer1
      python -m training evaluate $R --output report layer1
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
    run_command_line(cli, PROGRAM, hint="run the same command again to continue")
