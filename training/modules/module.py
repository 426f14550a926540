"""What the Lightning modules of all trainings have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import lightning
import torch

from training.modules.optimisation import one_cycle_adamw

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from torch import Tensor, nn

    from ccr_deploy.codec.contract import Preprocessing
    from training.recipe import Phase

Batch = tuple["Tensor", "Tensor"]
"""Images ``uint8 [N, H, W, 3]`` and labels ``int64 [N]``."""


class TrainingModule(lightning.LightningModule, ABC):
    """A network, its loss, and AdamW with a one-cycle schedule.

    Args:
        preprocessing: the normalisation of the images.
        phase: the hyperparameters.
        steps: steps of the optimizer in the whole training.
        iterations: every T that is trained.
    """

    def __init__(
        self, preprocessing: Preprocessing, *, phase: Phase, steps: int, iterations: Sequence[int]
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.phase = phase
        self.steps = steps
        self.trained_iterations = tuple(iterations)

    def draw_iterations(self) -> int:
        """Draw the T of one batch.

        From the CPU's generator, which has the same seed in all processes, so that they draw the same T.
        """
        if len(self.trained_iterations) == 1:
            return self.trained_iterations[0]
        return self.trained_iterations[int(torch.randint(len(self.trained_iterations), ()))]

    def compile_networks(self) -> None:
        """Compile the networks with torch.compile; the names of their parameters stay."""
        # The compiler's own random numbers are others than PyTorch's: then the bits would be others too.
        for module in self.networks():
            module.compile(options={"fallback_random": True})

    @abstractmethod
    def networks(self) -> Iterable[nn.Module]:
        """Return the networks that are worth compiling one by one."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a one-cycle schedule."""
        return one_cycle_adamw(self.parameters(), self.phase, self.steps)
