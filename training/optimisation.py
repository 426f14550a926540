"""The optimizer of both training steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from training.recipe import Phase


def one_cycle_adamw(parameters: Iterator[torch.nn.Parameter], phase: Phase) -> OptimizerLRScheduler:
    """Return AdamW with a learning rate that rises and falls once over the phase's steps.

    Smith, Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018.
    """
    optimiser = torch.optim.AdamW(parameters, lr=phase.learning_rate, weight_decay=phase.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, phase.learning_rate, total_steps=phase.steps)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
