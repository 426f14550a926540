"""The optimizer of every training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from training.recipe import Phase


def one_cycle_adamw(
    parameters: Iterable[torch.nn.Parameter], phase: Phase, steps: int
) -> OptimizerLRScheduler:
    """Return AdamW with a learning rate that rises and falls once.

    Smith, Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018.

    Args:
        parameters: what is trained.
        phase: learning rate, warm-up and weight decay.
        steps: steps of the optimizer in the whole training.
    """
    optimiser = torch.optim.AdamW(parameters, lr=phase.learning_rate, weight_decay=phase.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, phase.learning_rate, total_steps=steps, pct_start=phase.warmup_share
    )
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
