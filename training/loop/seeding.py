"""Random numbers that depend on the seed and the step alone, not on what was drawn before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import Callback

from ccr_deploy.models.binarizer import Binarizer
from training.data.batches import seed_of
from training.loop.draws import GlobalBatchDraws

if TYPE_CHECKING:
    import lightning


class SeedEachBatch(Callback):
    """Seeds PyTorch's generators before each batch, equally in all processes.

    So a resumed training draws the bits and T that it would have drawn, and there is no state of a generator
    to save. Each process draws the bits of the whole global batch and takes those of its own images.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Let the binarizers draw the same bits on any number of processes."""
        for module in pl_module.modules():
            if isinstance(module, Binarizer):
                module.draw = GlobalBatchDraws(trainer.global_rank, trainer.world_size)

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002  Lightning's signature, as the next two
        pl_module: lightning.LightningModule,  # noqa: ARG002
        batch: object,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Seed the generators of CPU and GPUs.

        Args:
            trainer: the trainer.
            pl_module: the module that is trained.
            batch: the batch.
            batch_idx: its number, counted over the whole training.
        """
        torch.manual_seed(seed_of(self.seed, batch_idx))
