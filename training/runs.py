"""Folders of finished trainings: evaluate and compare what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.progress import SILENT
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.checkpoint import load_checkpoint
from training.evaluation.accuracy import evaluate
from training.evaluation.comparison import compare
from training.evaluation.results import (
    CHECKPOINT_FILE,
    EVALUATION_FILE,
    Evaluation,
    read_result,
    write_result,
)
from training.loop.options import best_device

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.core.progress import Progress
    from training.data.open import TrainingData
    from training.evaluation.comparison import Comparison


def evaluate_run(
    folder: Path,
    data: TrainingData,
    iterations: Sequence[int] = (),
    *,
    workers: int = 0,
    rounds: int = 0,
    progress: Progress = SILENT,
) -> None:
    """Evaluate the checkpoint in a folder, and write its ``evaluation.json``.

    A folder without a checkpoint, as `pretrain` writes it, is left as it is. The T that were trained are
    always evaluated.

    Args:
        folder: the folder of a finished training.
        data: the test images.
        iterations: further T to run with.
        workers: number of processes that load images; 0 to load them in this one.
        rounds: number of rounds that time each T once; 0 to leave out the latencies.
        progress: advances by images.

    Raises:
        WrongUsageError: if the checkpoint has other classes than the data.
        CheckpointError: if the checkpoint is damaged.
        ImageError: if an image cannot be used.
    """
    path = folder / CHECKPOINT_FILE
    if not folder.is_dir():
        raise WrongUsageError(f"{folder}: no such folder: give the --output folder of a training")
    if not path.exists():
        return
    checkpoint = load_checkpoint(path)
    if checkpoint.class_names != data.class_names:
        raise WrongUsageError(
            f"{path}: was trained with {len(checkpoint.class_names)} other classes than the "
            f"{len(data.class_names)} of the data: give its recipe, and the same --data and --classes"
        )
    result = evaluate(
        checkpoint,
        data.test,
        (*iterations, *checkpoint.trained_iterations),
        workers=workers,
        rounds=rounds,
        device=best_device(),
        progress=progress,
    )
    write_result(result, folder / EVALUATION_FILE)


def compare_runs(folders: Sequence[Path]) -> list[Comparison]:
    """Compare the accuracy of the first of several evaluated checkpoints with each other one.

    Args:
        folders: their folders, at least one.

    Raises:
        WrongUsageError: if one has no evaluation, or they were evaluated on other images or have no T in
            common.
    """
    if len(folders) < 2:
        raise WrongUsageError("--compare needs at least two folders")
    for folder in folders:
        if not (folder / EVALUATION_FILE).exists():
            raise WrongUsageError(f"{folder}: has no checkpoint, so no accuracy to compare: omit it")
    first, *others = [
        (folder.resolve().name, read_result(Evaluation, folder / EVALUATION_FILE)) for folder in folders
    ]
    return [
        compare(first[0], name, [(first[1], evaluation)], entry.iterations)
        for name, evaluation in others
        for entry in first[1].per_iteration
        if evaluation.at(entry.iterations)
    ]
