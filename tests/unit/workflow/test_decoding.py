"""Images are decoded ahead, in order, and only a few of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ccr_deploy.core.shards import Shard
from ccr_deploy.errors import ImageError
from ccr_deploy.workflow.batches import in_batches
from ccr_deploy.workflow.decoding import LOOK_AHEAD, decoded
from tests.support.bundles import TINY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNT = 3 * LOOK_AHEAD


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Images of one colour each: red is their number. The first ones take the longest."""
    made = []
    for number in range(COUNT):
        size = (1200, 800) if number < 4 else (48, 32)
        Image.new("RGB", size, (number, 0, 0)).save(tmp_path / f"{number:02}.png")
        made.append(tmp_path / f"{number:02}.png")
    return made


@pytest.fixture
def contract(tiny_bundle):
    return tiny_bundle.manifest.contract


def test_images_come_in_order(paths, contract) -> None:
    images = list(decoded(paths, contract))
    assert [int(image[0, 0, 0]) for image in images] == list(range(COUNT))
    assert images[0].shape == (TINY.image_height, TINY.image_width, 3)


def test_no_more_images_are_read_than_looked_ahead(paths, contract) -> None:
    read = []

    def listed() -> Iterator[Path]:
        for path in paths:
            read.append(path)
            yield path

    images = decoded(listed(), contract)
    assert read == []
    next(images)
    next(images)
    assert len(read) == LOOK_AHEAD + 2
    images.close()
    assert len(read) == LOOK_AHEAD + 2


def test_the_first_image_that_cannot_be_used_is_reported_after_those_before_it(paths, contract) -> None:
    for number in (5, 6):
        paths[number].write_bytes(b"no image")
    images = decoded(paths, contract)
    assert [int(next(images)[0, 0, 0]) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ImageError, match=r"05\.png"):
        next(images)


@pytest.mark.parametrize("shards", [1, 2, 3, 20])
def test_shards_are_whole_batches_and_together_all_of_them(shards: int) -> None:
    batches = list(in_batches(range(30), 4))
    found = {}
    for index in range(shards):
        shard = Shard(index, shards)
        found |= dict(zip(shard.numbers(), shard.chosen(batches), strict=False))
    assert [found[number] for number in range(len(batches))] == batches


@pytest.mark.parametrize("text", ["1", "1/1", "-1/2", "0/0", "0/2/3", "a/b", "0/1001", "0/99999", "٠/٢"])
def test_what_is_not_a_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not I/N"):
        Shard.parse(text)
    assert str(Shard.parse("1/3")) == "1/3"


def test_pixels_do_not_depend_on_the_threads(paths, contract, monkeypatch) -> None:
    first = np.stack(list(decoded(paths, contract)))
    monkeypatch.setattr("ccr_deploy.workflow.decoding.thread_count", lambda: 1)
    assert np.array_equal(first, np.stack(list(decoded(paths, contract))))
