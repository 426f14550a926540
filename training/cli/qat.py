"""``python -m training qat``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.cli.common import training_command

if TYPE_CHECKING:
    from training.steps import Training


@click.command(
    epilog="Example: python -m training qat --recipe photos-demo --checkpoint trained/checkpoint.pt --output qat"
)
@training_command("qat")
def qat(training: Training, as_json: bool) -> None:
    """Fine-tune a checkpoint with fake quantization, so that it loses less in INT8."""
