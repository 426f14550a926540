"""Random numbers of the binarizer that do not depend on the number of processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GlobalBatchDraws:
    """Draws the random numbers of the whole global batch, and returns those of this process's images.

    The global batch, that of one step of the optimizer, consists of parts of equal size: the micro-batches of
    all processes. The generators of all processes must have the same state, and the same one before each
    micro-batch of a step. Then the numbers that an image gets are the same on any number of processes and
    with any number of micro-batches, and so are its bits::

        encoder.binarizer.draw = GlobalBatchDraws(part, parts)

    Attributes:
        part: the number of this micro-batch in the global batch, from 0.
        parts: the number of micro-batches in the global batch.
    """

    part: int
    parts: int

    def __call__(self, like: Tensor) -> Tensor:
        """Return numbers, uniform in 0..1, of the shape, the type and the device of ``[N, ...]``."""
        batch = len(like)
        shape = (self.parts * batch, *like.shape[1:])
        # Not `rand_like`, whose numbers are in another order if a tensor is in channels_last.
        drawn = torch.rand(shape, dtype=like.dtype, device=like.device)
        return drawn[self.part * batch : (self.part + 1) * batch]
