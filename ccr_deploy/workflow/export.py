"""Checkpoint to bundle, in FP32 and FP16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.progress import SILENT
from ccr_deploy.errors import MissingExtraError, WrongUsageError
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.quantization import model_optimizer
from ccr_deploy.quantization.converters import CONVERTERS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import Schedule
    from ccr_deploy.models.checkpoint import Checkpoint


def export_with_fp16(
    checkpoint: Checkpoint,
    path: Path,
    *,
    schedules: Sequence[Schedule],
    baseline: Checkpoint | None = None,
    images: Path | None = None,
    untrained_iterations: bool = False,
    progress: Progress = SILENT,
) -> Bundle:
    """`export_bundle` with FP16 graphs beside the FP32 ones.

    Raises:
        WrongUsageError: Model Optimizer is not installed, or as `export_bundle` says.
        PrecisionError: a graph cannot be converted.
        BundleError, ImageError: as `export_bundle` says.
    """
    try:
        model_optimizer.check_installed()
    except MissingExtraError as error:
        raise WrongUsageError(f"{error}, or export FP32 graphs alone with --no-fp16") from error
    return export_bundle(
        checkpoint,
        path,
        schedules=schedules,
        baseline=baseline,
        images=images,
        converters=CONVERTERS,
        untrained_iterations=untrained_iterations,
        progress=progress,
    )
