"""The option ``--check`` of the trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import TerminalProgress, echo_json, print_lines
from training.data.check import check_data, render

if TYPE_CHECKING:
    from training.steps import Training

PICTURE = "training-images.png"


def check(training: Training, *, as_json: bool) -> None:
    """Check the data of a training and print what was found; exit with status 1 if an image is unusable.

    Args:
        training: the training, whose folder gets a picture of training images.
        as_json: whether to print JSON.
    """
    picture = training.folder / PICTURE
    found = check_data(training.data, picture, training.options.workers, TerminalProgress())
    if as_json:
        echo_json(found)
    else:
        print_lines(*render(found))
    if not found.passed:
        click.get_current_context().exit(1)
