"""Top-1 accuracy of a checkpoint on test images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader

from ccr_deploy.core.metrics import grouped_bootstrap_interval, top_k_hits
from ccr_deploy.models.chain import normalise
from ccr_deploy.models.checkpoint import build_model

if TYPE_CHECKING:
    from ccr_deploy.models.checkpoint import Checkpoint
    from training.data.open import TrainingData


def test_metrics(checkpoint: Checkpoint, data: TrainingData) -> dict[str, float]:
    model = build_model(checkpoint)
    logits, labels = [], []
    with torch.inference_mode():
        for images, batch_labels in DataLoader(data.test, batch_size=256):
            logits.append(model(normalise(images, checkpoint.preprocessing)).numpy())
            labels.append(batch_labels.numpy())
    hits = 100.0 * top_k_hits(np.concatenate(logits), np.concatenate(labels), 1)
    hits5 = 100.0 * top_k_hits(np.concatenate(logits), np.concatenate(labels), 5)
    interval = grouped_bootstrap_interval(hits, data.test_groups)
    return {
        "top1_percent": float(hits.mean()),
        "top5_percent": float(hits5.mean()),
        "top1_percent_low": interval.low,
        "top1_percent_high": interval.high,
        "images": float(len(hits)),
        "groups": float(len(set(data.test_groups))),
    }
