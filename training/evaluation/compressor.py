"""The quality of a compressor's restored images, and some of them as a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader

from ccr_deploy import CREATED_BY
from ccr_deploy.codec.contract import DOWNSAMPLING
from training.evaluation.grids import restoration_grid
from training.evaluation.restoration import ms_ssim_weights, restoration_quality
from training.evaluation.results import Restoration

if TYPE_CHECKING:
    from PIL import Image

    from training.data.open import TestImages
    from training.evaluation.restoration import Restorer

GRID_IMAGES = 6


def evaluate_compressor(
    restorer: Restorer, images: TestImages, iterations: int, *, batch: int = 64, workers: int = 0
) -> Restoration:
    """Measure how well test images are restored after each iteration.

    Args:
        restorer: encoder and decoder.
        images: the test images.
        iterations: the number of iterations T.
        batch: number of images that are computed together.
        workers: number of processes that load images; 0 to load them in this one.

    Raises:
        ImageError: if an image cannot be used.
    """
    height, width = images.dataset[0][0].shape[:2]
    loader = DataLoader(images.dataset, batch_size=batch, num_workers=workers)
    channels = restorer.encoder.binarizer.conv.out_channels
    return Restoration(
        created_by=CREATED_BY,
        data=images.name,
        images=len(images.groups),
        image_height=height,
        image_width=width,
        code_bytes=channels * (height // DOWNSAMPLING) * (width // DOWNSAMPLING) // 8,
        ms_ssim_scales=len(ms_ssim_weights(height, width)),
        per_iteration=restoration_quality(restorer, (batch[0] for batch in loader), iterations),
    )


def example_grid(restorer: Restorer, images: TestImages, iterations: int) -> Image.Image:
    """Return a grid of test images that are spread evenly over the data, and what is restored of them.

    Args:
        restorer: encoder and decoder.
        images: the test images.
        iterations: the number of iterations T.
    """
    count = len(images.groups)
    chosen = torch.linspace(0, count - 1, min(GRID_IMAGES, count)).round().int().tolist()
    originals = torch.stack([images.dataset[index][0] for index in chosen])
    return restoration_grid(originals, restorer.restore(originals, iterations))
