"""Repeated and fresh inputs of timed runs."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.benchmarking.inputs import FRESH, REPEATED, InputSource, Items, inputs_of_round, random_items

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("number", "runs", "letters"),
    [(0, 3, "rrf"), (1, 3, "ffr"), (2, 4, "rrff"), (3, 4, "ffrr"), (0, 1, "r"), (1, 2, "fr")],
)
def test_each_kind_is_one_half_of_a_round_and_they_swap(number: int, runs: int, letters: str) -> None:
    assert inputs_of_round(number, runs) == letters


def test_the_repeated_input_is_the_same_in_a_round_and_another_in_the_next() -> None:
    source = InputSource(IMAGES, 2)
    first = source.make(REPEATED, 3)
    assert (first == source.make(REPEATED, 3)).all()
    assert (first == IMAGES[[3, 4]]).all()
    assert (source.make(REPEATED, 4) == IMAGES[[4, 0]]).all()


def test_every_array_is_new_so_that_only_its_content_can_be_known() -> None:
    source = InputSource(IMAGES, 2)
    one, other = source.make(REPEATED, 0), source.make(REPEATED, 0)
    assert not np.shares_memory(one, other)
    assert not np.shares_memory(one, IMAGES)


def test_fresh_inputs_never_occur_twice() -> None:
    source, again = InputSource(IMAGES, 1), InputSource(IMAGES, 1)
    made = [one.make(FRESH, 0).tobytes() for one in (source, again) for _ in range(200)]
    assert len(set(made)) == 400
    assert not {image.tobytes() for image in IMAGES} & set(made)


def test_fresh_inputs_are_nearly_other_images() -> None:
    fresh = InputSource(IMAGES, 5).make(FRESH, 0)
    differences = (fresh != IMAGES[[2, 3, 4, 0, 1]]).reshape(5, -1).sum(axis=1)
    assert ((differences > 0) & (differences <= 8)).all()


def test_items_smaller_than_the_change_become_fresh_too() -> None:
    codes = np.zeros((2, 3), np.uint8)
    made = {InputSource(codes, 1).make(FRESH, 0).tobytes() for _ in range(50)}
    assert len(made) == 50


def test_a_batch_larger_than_the_items_repeats_them() -> None:
    assert (InputSource(IMAGES, 12).make(REPEATED, 1) == IMAGES[(1 + np.arange(12)) % 5]).all()
    assert InputSource(IMAGES, 12).batch_bytes == 12 * 72


def test_items_are_the_same_after_a_message() -> None:
    assert (Items.of(IMAGES[::2]).array() == IMAGES[::2]).all()


def test_random_items_have_the_shape_of_an_input() -> None:
    assert random_items((7,)).shape == (8, 7)
