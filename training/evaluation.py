"""Top-1 accuracy of a checkpoint on a folder of test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader

from ccr_deploy.core.metrics import Interval, grouped_bootstrap_interval, top_k_hits
from ccr_deploy.models.chain import normalise
from ccr_deploy.models.checkpoint import build_model
from training.data.image_folder import ImageFolder

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class CheckpointAccuracy:
    """Top-1 accuracy in percent with its 95 % interval, and the number of images and groups."""

    top1_percent: float
    interval_percent: Interval
    images: int
    groups: int


def evaluate(checkpoint: Checkpoint, folder: Path, batch: int = 256) -> CheckpointAccuracy:
    """Measure a checkpoint's accuracy on a folder of images, which are preprocessed as in production.

    The interval resamples whole groups (``class/region/``), since crops of one region are correlated.

    Args:
        checkpoint: the checkpoint.
        folder: images as ``class/image.png`` or ``class/group/image.png``.
        batch: number of images that are computed together.

    Raises:
        ImageError: if the folder or an image in it cannot be used.
    """
    dataset = ImageFolder(folder, checkpoint.config, checkpoint.preprocessing, checkpoint.class_names)
    model = build_model(checkpoint)
    with torch.inference_mode():
        logits = [
            model(normalise(images, checkpoint.preprocessing)).numpy()
            for images, _ in DataLoader(dataset, batch_size=batch)
        ]
    hits = 100.0 * top_k_hits(np.concatenate(logits), np.array(dataset.labels), 1)
    return CheckpointAccuracy(
        top1_percent=float(hits.mean()),
        interval_percent=grouped_bootstrap_interval(hits, dataset.groups),
        images=len(dataset),
        groups=len(set(dataset.groups)),
    )
