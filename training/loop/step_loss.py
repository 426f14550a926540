"""The loss of a step of the optimizer, over all its micro-batches and all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from training.loop.saved_state import diverged

if TYPE_CHECKING:
    from pathlib import Path

    import lightning


class StepLoss(Callback):
    """Logs the mean loss of the global batch, and stops the training if it is not a number.

    A sum that is not finite is found in all processes at the same step, so that none waits for another one.

    Args:
        state: the file of the last state, for the error.
        log_every: steps between two logged values. Each waits for the GPU and for the other processes.
        save_every: steps between two states: none is saved after a loss that is not finite.
    """

    def __init__(self, state: Path, log_every: int, save_every: int) -> None:
        self.state, self.log_every, self.save_every = state, log_every, save_every
        self._losses: list[torch.Tensor] = []
        self._step = 0

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Remember the step that the training continues at."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,  # noqa: ANN401 -- Lightning's signature
        batch: object,  # noqa: ARG002  Lightning's signature
        batch_idx: int,
    ) -> None:
        """Add the loss of a micro-batch; at the end of a step, log the mean if it is time.

        Args:
            trainer: the trainer.
            pl_module: the module that is trained.
            outputs: what the training step returned, with the loss.
            batch: the micro-batch.
            batch_idx: its number, counted over the whole training.

        Raises:
            TrainingError: if the loss is not finite.
        """
        self._losses.append(outputs["loss"].detach())  # divided by the number of micro-batches
        if trainer.global_step == self._step:
            return
        self._step = step = trainer.global_step
        losses, self._losses = torch.stack(self._losses), []
        is_last = batch_idx + 1 == trainer.num_training_batches
        if step % self.log_every and step % self.save_every and not is_last:
            return
        loss = trainer.strategy.reduce(losses.sum(), reduce_op="mean")
        if not torch.isfinite(loss):
            raise diverged(f"the loss is {loss.item()} at step {step}", self.state)
        pl_module.log("loss", loss)
