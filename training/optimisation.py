"""The optimiser that both steps share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from training.recipe import Phase


def configure(parameters: Iterator[torch.nn.Parameter], phase: Phase) -> OptimizerLRScheduler:
    """AdamW whose learning rate rises and falls once over the phase's steps."""
    optimiser = torch.optim.AdamW(parameters, lr=phase.learning_rate, weight_decay=phase.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, phase.learning_rate, total_steps=phase.steps)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
