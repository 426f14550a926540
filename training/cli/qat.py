"""``python -m training qat``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import path_option
from training.cli.common import training_command

if TYPE_CHECKING:
    from training.steps import Training


@click.command(
    epilog="Example: python -m training qat --recipe photos-demo --bundle build/demo/bundle "
    "--held-out build/demo/images --output build/qat"
)
@path_option("--bundle", "DIR", "Calibrated bundle of the checkpoint to fine-tune.", required=True)
@path_option("--held-out", "DIR", "Images to measure each precision's accuracy on.", required=True)
@training_command("qat")
def qat(training: Training, bundle: Path, held_out: Path, as_json: bool) -> None:
    """Train with fake quantization, for INT8.

    The chain of a calibrated bundle is fine-tuned, exported and quantized again with the same ranges.
    """
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.cli.common import TerminalProgress, echo_json, print_lines, stdout_console
    from ccr_deploy.reporting.precision_tables import accuracy_table
    from ccr_deploy.reporting.terminal import print_table
    from training import qat as training_step
    from training.evaluation.results import CHECKPOINT_FILE
    from training.report.report import write_report

    tuned = training_step.qat(training, Bundle.open(bundle), held_out, TerminalProgress())
    if tuned is None:
        return
    write_report(training.folder, [training.folder])
    calibration = tuned.manifest.calibration
    assert calibration is not None
    if as_json:
        echo_json(calibration)
        return
    print_table(stdout_console(), accuracy_table(calibration))
    print_lines(f"{training.folder / CHECKPOINT_FILE}", f"  {tuned.path}")
