"""The few images of a diagnosis are among those verified, and some of them are preferred."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ccr_deploy.workflow.images import few_images, image_set

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle

COUNT = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of one colour each: red is their number."""
    for number in range(COUNT):
        Image.new("RGB", (48, 32), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    return tmp_path


def numbers(images: np.ndarray) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def test_few_images_are_among_the_samples(tiny_bundle: Bundle, folder: Path) -> None:
    verified = numbers(np.concatenate(list(image_set(tiny_bundle, folder, 9).batches)))
    assert numbers(few_images(tiny_bundle, folder, 9, 16, ())) == verified
    assert set(numbers(few_images(tiny_bundle, folder, 9, 4, ()))) < set(verified)


def test_half_of_few_images_are_preferred(tiny_bundle: Bundle, folder: Path) -> None:
    preferred = {f"{number:02}.png" for number in range(1, 11)}
    chosen = numbers(few_images(tiny_bundle, folder, None, 8, preferred))
    assert len(set(chosen)) == 8
    assert sum(f"{number:02}.png" in preferred for number in chosen) >= 4
    assert {0, COUNT - 1} < set(chosen)
