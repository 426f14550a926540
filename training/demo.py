"""``python -m training.demo``: a small checkpoint, trained on scikit-image's photos in about two minutes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import click

from ccr_deploy.models.checkpoint import save_checkpoint
from ccr_deploy.models.config import DecoderConfig
from ccr_deploy.models.presets import default_preprocessing, preset
from training.data.textures import TestCrops, TrainingCrops, load_photos, write_test_images
from training.recipe import Phase, Recipe, train

MODEL = preset("demo")
RECIPE = Recipe(
    model=MODEL,
    preprocessing=default_preprocessing(MODEL),
    decoder=DecoderConfig(cell_channels=(64, 32, 32, 16)),
    pretraining=Phase(steps=100, learning_rate=2e-3),
    training=Phase(steps=800, learning_rate=3e-3, weight_decay=0.05, label_smoothing=0.1),
    batch=64,
)


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for checkpoint and test images."
)
@click.option("--seed", default=RECIPE.seed, show_default=True, help="Seed of weights, crops and binarizer.")
def main(output: Path, seed: int) -> None:
    """Train the demo's checkpoint and write its test images."""
    started = time.perf_counter()
    photos = load_photos()
    recipe = Recipe(**{**vars(RECIPE), "seed": seed})
    size = MODEL.image_height
    checkpoint = train(
        recipe,
        TrainingCrops(photos, size, recipe.batch, seed),
        TestCrops(photos, size),
        [photo.name for photo in photos],
    )
    shutil.rmtree(output / "images", ignore_errors=True)
    count = write_test_images(photos, size, output / "images")
    save_checkpoint(checkpoint, output / "checkpoint.pt")
    click.echo(
        f"{output / 'checkpoint.pt'}: {checkpoint.metrics['top1_percent']:.1f} % top-1 "
        f"on {count} crops of test regions, trained in {time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
