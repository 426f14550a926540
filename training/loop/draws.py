"""Random numbers of the binarizer that do not depend on the number of processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GlobalBatchDraws:
    """Draws the random numbers of the whole global batch, and returns those of this process's images.

    The global batch is the concatenation of the batches of all processes, which have the same size, in the
    order of their ranks. The generators of all processes must have the same state. Then the numbers that an
    image gets are the same on any number of processes, and so are its bits::

        encoder.binarizer.draw = GlobalBatchDraws(rank, world_size)

    Attributes:
        rank: the number of this process, from 0.
        world_size: the number of processes.
    """

    rank: int
    world_size: int

    def __call__(self, like: Tensor) -> Tensor:
        """Return numbers, uniform in 0..1, of the shape, the type and the device of ``[N, ...]``."""
        batch = len(like)
        shape = (self.world_size * batch, *like.shape[1:])
        # Not `rand_like`, whose numbers are in another order if a tensor is in channels_last.
        drawn = torch.rand(shape, dtype=like.dtype, device=like.device)
        return drawn[self.rank * batch : (self.rank + 1) * batch]
