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
    """Seeds PyTorch's generators before each micro-batch, equally in all processes and in one step.

    So a resumed training draws the bits and T that it would have drawn, and there is no state of a generator
    to save. Each process draws the bits of the whole global batch and takes those of its own images.

    Args:
        seed: the seed of T and random bits.
        accumulation: the number of micro-batches in one step of the optimizer.
    """

    def __init__(self, seed: int, accumulation: int) -> None:
        self.seed, self.accumulation = seed, accumulation

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: object,  # noqa: ARG002  Lightning's signature
        batch_idx: int,
    ) -> None:
        """Seed the generators of CPU and GPUs, and let the binarizers draw this micro-batch's bits.

        Args:
            trainer: the trainer.
            pl_module: the module that is trained.
            batch: the micro-batch.
            batch_idx: its number, counted over the whole training.
        """
        step, micro_batch = divmod(batch_idx, self.accumulation)
        torch.manual_seed(seed_of(self.seed, step))
        draws = GlobalBatchDraws(
            micro_batch * trainer.world_size + trainer.global_rank, self.accumulation * trainer.world_size
        )
        for module in pl_module.modules():
            if isinstance(module, Binarizer):
                module.draw = draws
