"""The sample images of a bundle, with which a device can verify its engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.data.images import list_images, load_image

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.models.checkpoint import Checkpoint
    from ccr_deploy.models.config import ModelConfig

    LabelledImage = tuple[npt.NDArray[np.uint8], int | None]

SAMPLE_COUNT = 8
"""Few, because they are in every bundle; enough for parity and for AutoCast's check of values."""


def folder_samples(folder: Path, checkpoint: Checkpoint) -> list[LabelledImage]:
    """Load up to 8 images, selected evenly over a folder, preprocessed, with their labels if there are any.

    Raises:
        ImageError: if the folder is missing or empty, or an image cannot be used.
    """
    items = list_images(folder, checkpoint.class_names, checkpoint.config.classifier.classes)
    chosen = np.linspace(0, len(items) - 1, min(SAMPLE_COUNT, len(items))).round().astype(int)
    size = checkpoint.config.image_height, checkpoint.config.image_width
    return [
        (load_image(items[index].path, checkpoint.preprocessing, *size), items[index].label)
        for index in chosen
    ]


def pattern_samples(config: ModelConfig) -> list[LabelledImage]:
    """Return 8 synthetic images of waves and noise without labels, if no folder of images is given.

    They are sufficient for parity, but not for accuracy.
    """
    generator = np.random.default_rng(0)  # fixed, so that two exports give the same bundle
    height, width = config.image_height, config.image_width
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    samples: list[LabelledImage] = []
    for _ in range(SAMPLE_COUNT):
        frequency = generator.uniform(1, 12, size=(3, 2))
        phase = generator.uniform(0, 2 * np.pi, size=3)
        angle = rows[..., None] * frequency[:, 0] + columns[..., None] * frequency[:, 1]
        waves = 128 + 90 * np.sin(2 * np.pi * angle + phase)
        noisy = waves + generator.normal(0, 12, size=waves.shape)
        samples.append((noisy.clip(0, 255).astype(np.uint8), None))
    return samples
