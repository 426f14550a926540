"""Train the demo's checkpoint on scikit-image's photos in about two minutes: ``python -m training.demo``.

The same trainings as ``python -m training pretrain`` and ``finetune`` with the recipe photos-demo, and
folders of test and calibration images for the commands of ccr-deploy.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from msgspec import structs

from ccr_deploy.models.checkpoint import load_checkpoint, save_checkpoint
from training.data.open import TrainingData, open_photos
from training.data.photos import load_photos, write_calibration_images, write_test_images
from training.evaluation.results import EVALUATION_FILE, Evaluation, read_result
from training.initial_weights import encoder_weights
from training.loop.options import MachineOptions
from training.recipe import TrainingRecipe, read_recipe
from training.steps import Training, finetune, pretrain

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.models.checkpoint import Checkpoint

RECIPE = read_recipe("photos-demo")


@click.command(epilog="Example: python -m training.demo --output build/demo")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for checkpoint and images."
)
@click.option("--seed", default=RECIPE.seed, show_default=True, help="Seed of weights, crops and binarizer.")
def main(output: Path, seed: int) -> None:
    """Train the demo's checkpoint, and write images for testing and calibration."""
    started = time.perf_counter()
    # A model this small gains little from a second thread, and on a busy machine threads that wait for each
    # other take ten times as long. With one thread, sums are also the same on any number of cores.
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    recipe = structs.replace(RECIPE, seed=seed)
    size = recipe.chain(classes=16).image_height
    with tempfile.TemporaryDirectory(prefix=".training.", dir=output) as temporary:
        path = pretrain_and_finetune(recipe, open_photos(size), MachineOptions(), Path(temporary))
        checkpoint = load_checkpoint(path)
        evaluation = read_result(Evaluation, path.parent / EVALUATION_FILE)
    photos = load_photos()
    replace_folder(output / "images", lambda folder: write_test_images(photos, size, folder))
    replace_folder(output / "calibration", lambda folder: write_calibration_images(photos, size, folder))
    # Written last: if the checkpoint exists, the folder is complete.
    save_checkpoint(checkpoint, output / "checkpoint.pt")
    metrics = checkpoint.metrics
    click.echo(
        f"{output / 'checkpoint.pt'}: {metrics['top1_percent']:.1f} % top-1, 95 % interval "
        f"{metrics['top1_percent_low']:.1f} to {metrics['top1_percent_high']:.1f} %, on "
        f"{evaluation.images} crops of {evaluation.groups} test regions; "
        f"trained in {time.perf_counter() - started:.0f} s"
    )


def pretrain_and_finetune(
    recipe: TrainingRecipe, data: TrainingData, options: MachineOptions, folder: Path
) -> Path:
    """Train a compressor, then a checkpoint from its encoder, in one process.

    Args:
        recipe: the hyperparameters.
        data: training and test images.
        options: precision and speed.
        folder: where both trainings have a folder of their own.

    Returns:
        The checkpoint's file.
    """
    compressor = pretrain(Training("pretrain", recipe, data, options, folder / "pretrained"))
    assert compressor is not None
    encoder = encoder_weights([compressor])
    checkpoint = finetune(Training("finetune", recipe, data, options, folder / "finetuned"), encoder)
    assert checkpoint is not None
    return checkpoint


def train_briefly(pretrain_epochs: float, finetune_epochs: float) -> Checkpoint:
    """Train the demo's model with batches of 32 images, for tests and benchmarks.

    Args:
        pretrain_epochs: epochs of pretraining, of 40 steps each.
        finetune_epochs: epochs of fine-tuning, of 40 steps each.
    """
    assert RECIPE.pretrain is not None
    assert RECIPE.finetune is not None
    recipe = structs.replace(
        RECIPE,
        pretrain=structs.replace(RECIPE.pretrain, epochs=pretrain_epochs, batch=32, validations=1),
        finetune=structs.replace(RECIPE.finetune, epochs=finetune_epochs, batch=32, validations=1),
    )
    with tempfile.TemporaryDirectory() as folder:
        data = open_photos(recipe.chain(classes=16).image_height)
        return load_checkpoint(pretrain_and_finetune(recipe, data, MachineOptions(), Path(folder)))


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder, then replace `folder` with it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        written = Path(temporary) / folder.name
        write(written)
        if folder.exists():
            shutil.rmtree(folder)
        written.replace(folder)


if __name__ == "__main__":
    main()
