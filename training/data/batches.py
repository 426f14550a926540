"""Which samples are in which batch: a pure function of the seed and the batch's number.

So a resumed training continues with the samples that it would have had, and neither the number of processes
nor of the loader's workers changes which samples a step of the optimizer sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt


@dataclass(frozen=True)
class Sample:
    """The key of a training image: its index, and the seed of everything random in its augmentation."""

    index: int
    seed: int


class Batches(Sampler[list[Sample]]):
    """The batches that one process loads during a whole training.

    All images in random order form an epoch, and the epochs form one sequence. Batch k of all processes
    together is a block of this sequence, of which each process takes an equal part, in the order of their
    ranks.

    Args:
        images: number of images in the data set.
        size: number of images in the batch of one process.
        count: number of batches of the whole training.
        seed: the seed of order and augmentation.
        rank: the number of this process.
        processes: the number of all processes.
    """

    def __init__(
        self, images: int, size: int, count: int, seed: int, *, rank: int = 0, processes: int = 1
    ) -> None:
        self.images, self.size, self.count, self.seed = images, size, count, seed
        self.rank, self.processes = rank, processes
        self.first = 0
        """The number of the batch to begin with; larger than 0 in a resumed training."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[Sample]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for number in range(self.first, self.count):
            start = (number * self.processes + self.rank) * self.size
            batch = []
            for position in range(start, start + self.size):
                if position // self.images != epoch:
                    epoch = position // self.images
                    order = self._order(epoch)
                index = int(order[position % self.images])
                batch.append(Sample(index, seed_of(self.seed, position)))
            yield batch

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.images)


def seed_of(seed: int, number: int) -> int:
    """Return the seed of one of many things that are drawn independently under a common seed.

    Args:
        seed: the common seed.
        number: the number of the thing: a sample, a step.

    Returns:
        An integer from 0 to 2**63 - 1.
    """
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> np.uint64(1))
