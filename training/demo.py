"""Train the demo's checkpoint on scikit-image's photos in about two minutes: ``python -m training.demo``."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch

from ccr_deploy.models.checkpoint import save_checkpoint
from ccr_deploy.models.config import DecoderConfig
from ccr_deploy.models.presets import default_preprocessing, preset
from training.data.image_folder import ImageFolder
from training.data.textures import (
    TestCrops,
    TrainingCrops,
    load_photos,
    write_calibration_images,
    write_test_images,
)
from training.evaluation import TestImages, evaluate
from training.recipe import Phase, TrainingRecipe
from training.train import train

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = preset("demo")
RECIPE = TrainingRecipe(
    model=MODEL,
    preprocessing=default_preprocessing(MODEL),
    decoder=DecoderConfig(cell_channels=(64, 32, 32, 16)),
    pretraining=Phase(steps=80, learning_rate=2e-3),
    training=Phase(steps=800, learning_rate=3e-3, weight_decay=0.05, label_smoothing=0.1, frozen_share=0.25),
    batch=64,
)


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
    photos = load_photos()
    size = MODEL.image_height
    checkpoint = train(
        replace(RECIPE, seed=seed),
        TrainingCrops(photos, size, RECIPE.batch, seed),
        TestCrops(photos, size),
        [photo.name for photo in photos],
    )
    replace_folder(output / "images", lambda folder: write_test_images(photos, size, folder))
    replace_folder(output / "calibration", lambda folder: write_calibration_images(photos, size, folder))
    images = ImageFolder(
        output / "images", MODEL, RECIPE.preprocessing, checkpoint.class_names, augment=False
    )
    evaluation = evaluate(checkpoint, TestImages("photos", images, images.groups))
    (accuracy,) = evaluation.per_iteration
    low, high = accuracy.top1_interval_percent.low, accuracy.top1_interval_percent.high
    metrics = {**checkpoint.metrics, "top1_percent_low": low, "top1_percent_high": high}
    # Written last: if the checkpoint exists, the folder is complete.
    save_checkpoint(replace(checkpoint, metrics=metrics), output / "checkpoint.pt")
    click.echo(
        f"{output / 'checkpoint.pt'}: {accuracy.top1_percent:.1f} % top-1, 95 % interval {low:.1f} to "
        f"{high:.1f} %, on {evaluation.images} crops of {evaluation.groups} test regions; "
        f"trained in {time.perf_counter() - started:.0f} s"
    )


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
