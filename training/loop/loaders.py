"""The loaders of a training: which process loads which samples, also after it was resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch.utils.data import DataLoader, Subset

from training.data.batches import Batches

if TYPE_CHECKING:
    from training.data.open import TrainingData
    from training.loop.options import MachineOptions
    from training.recipe import Phase

VALIDATION_BATCH = 64


class Loaders(lightning.LightningDataModule):
    """Training batches from the position where the training stands, and test images.

    Args:
        data: the images.
        phase: the hyperparameters, for the size of a batch.
        options: number of processes, workers and micro-batches.
        seed: seed of order and augmentation.
        first_step: steps of the optimizer that the training has done already.
    """

    def __init__(
        self, data: TrainingData, phase: Phase, options: MachineOptions, seed: int, first_step: int = 0
    ) -> None:
        super().__init__()
        self.data, self.phase, self.options, self.seed = data, phase, options, seed
        self.first_step = first_step

    @property
    def batches(self) -> int:
        """The number of batches that each process takes in the whole training."""
        images = len(self.data.training)  # type: ignore[arg-type]  # every data set here has a length
        return self.phase.steps(images) * self.options.accumulation(self.phase)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of this process that are still to be trained."""
        assert self.trainer is not None
        batches = Batches(
            len(self.data.training),  # type: ignore[arg-type]
            self.options.micro_batch_of(self.phase),
            self.batches,
            self.seed,
            rank=self.trainer.global_rank,
            processes=self.trainer.world_size,
        )
        batches.first = self.first_step * self.options.accumulation(self.phase)
        return DataLoader(
            self.data.training,
            batch_sampler=batches,
            num_workers=self.options.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the test images."""
        assert self.trainer is not None
        count = len(self.data.test.groups)
        own = range(self.trainer.global_rank, count, self.trainer.world_size)
        return DataLoader(
            Subset(self.data.test.dataset, own),
            batch_size=min(VALIDATION_BATCH, self.phase.batch),
            num_workers=self.options.workers,
        )
