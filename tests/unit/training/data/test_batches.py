from __future__ import annotations

from itertools import chain

import pytest

from training.data.batches import Batches, Sample, seed_of

IMAGES = 10


def batches(size: int = 4, count: int = 10, seed: int = 0, rank: int = 0, processes: int = 1) -> Batches:
    return Batches(IMAGES, size, count, seed, rank=rank, processes=processes)


def test_every_epoch_has_every_image_once_in_another_order() -> None:
    indices = [sample.index for sample in chain.from_iterable(batches(count=5))]
    assert sorted(indices[:IMAGES]) == list(range(IMAGES))
    assert sorted(indices[IMAGES:]) == list(range(IMAGES))
    assert indices[:IMAGES] != indices[IMAGES:]


def test_a_resumed_training_continues_with_the_same_samples() -> None:
    whole = list(batches())
    for first in (1, 3, 9, 10):
        resumed = batches()
        resumed.first = first
        assert list(resumed) == whole[first:]
        assert len(resumed) == len(whole)


@pytest.mark.parametrize(("processes", "size"), [(2, 4), (4, 2), (2, 2)])
def test_processes_and_micro_batches_divide_the_same_samples(processes: int, size: int) -> None:
    """A step of 8 images: of one process, or of several processes with several micro-batches each."""
    whole = list(batches(size=8, count=5))
    micro_batches = 8 // (processes * size)
    ranks = [
        list(batches(size=size, count=5 * micro_batches, rank=rank, processes=processes))
        for rank in range(processes)
    ]
    for step, expected in enumerate(whole):
        seen: list[Sample] = []
        for number in range(step * micro_batches, (step + 1) * micro_batches):
            for rank in range(processes):
                seen += ranks[rank][number]
        assert seen == expected


def test_the_augmentation_differs_between_epochs_and_images() -> None:
    seeds = [sample.seed for sample in chain.from_iterable(batches(count=50))]
    assert len(set(seeds)) == len(seeds)


def test_another_seed_gives_other_samples() -> None:
    assert list(batches(seed=0)) == list(batches(seed=0))
    assert list(batches(seed=0)) != list(batches(seed=1))
    assert 0 <= seed_of(3, 5) < 2**63
    assert seed_of(3, 5) != seed_of(5, 3)
