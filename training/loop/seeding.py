"""Random numbers that depend on the seed and the step alone, not on what was drawn before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import Callback

from training.data.batches import seed_of

if TYPE_CHECKING:
    import lightning


class SeedEachBatch(Callback):
    """Seeds PyTorch's generators before each batch, equally in all processes.

    So a resumed training draws the bits and T that it would have drawn, and there is no state of a generator
    to save.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002  Lightning's signature, as the next two
        pl_module: lightning.LightningModule,  # noqa: ARG002
        batch: object,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Seed the generators of CPU and GPUs."""
        torch.manual_seed(seed_of(self.seed, batch_idx))
