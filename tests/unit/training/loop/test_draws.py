"""Random numbers of the binarizer in several processes and micro-batches."""

from __future__ import annotations

import torch

from ccr_deploy.models.binarizer import Binarizer
from training.loop.draws import GlobalBatchDraws


def drawn(part: int, parts: int, like: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draws = GlobalBatchDraws(part, parts)
        draws(like)  # an earlier iteration: the next one's numbers are equal too
        return draws(like)


def test_the_numbers_of_all_parts_are_those_of_the_whole_batch() -> None:
    whole = drawn(0, 1, torch.empty(6, 4, 3, 2))
    for parts in (2, 3):
        like = torch.empty(6 // parts, 4, 3, 2)
        assert torch.equal(torch.cat([drawn(part, parts, like) for part in range(parts)]), whole)
    assert not torch.equal(whole[:3], whole[3:])
    assert not torch.equal(drawn(0, 1, torch.empty(6, 4, 3, 2), seed=1), whole)


def test_the_numbers_do_not_depend_on_the_memory_layout() -> None:
    like = torch.empty(2, 4, 3, 2)
    assert torch.equal(drawn(0, 1, like.contiguous(memory_format=torch.channels_last)), drawn(0, 1, like))


def test_numbers_have_the_type_of_the_tensor() -> None:
    assert drawn(0, 2, torch.empty(3, 1, dtype=torch.float64)).dtype == torch.float64


def test_two_halves_of_a_batch_draw_the_bits_of_the_whole() -> None:
    binarizer = Binarizer(4, 8).train()
    features = torch.randn(6, 4, 3, 3)

    def bits(part: int, parts: int) -> torch.Tensor:
        binarizer.draw = GlobalBatchDraws(part, parts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return binarizer(features.chunk(parts)[part])

    assert torch.equal(torch.cat([bits(0, 2), bits(1, 2)]), bits(0, 1))
