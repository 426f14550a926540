from __future__ import annotations

from dataclasses import replace
from itertools import islice, product
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from ccr_deploy.data.images import list_images
from training.data import textures

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

SIZE = 48


@pytest.fixture(scope="module")
def photos() -> tuple[textures.Photo, ...]:
    return textures.load_photos()


def covered(photo: textures.Photo, corners: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return the pixels that are in at least one crop; `corners` are the top left ones, ``[crops, 2]``.

    Each crop adds 1 to its rectangle by marking the rectangle's four corners; sums over rows and
    columns spread the marks.
    """
    height, width, _ = photo.pixels.shape
    assert corners.min() >= 0
    assert (corners + SIZE <= (height, width)).all()
    marks = np.zeros((height + 1, width + 1), dtype=np.int64)
    for down, right, mark in ((0, 0, 1), (SIZE, 0, -1), (0, SIZE, -1), (SIZE, SIZE, 1)):
        np.add.at(marks, (corners[:, 0] + down, corners[:, 1] + right), mark)
    return marks.cumsum(0).cumsum(1)[:height, :width] > 0


def test_there_are_enough_classes_and_crops(photos: tuple[textures.Photo, ...]) -> None:
    crops = textures.test_crops(photos, SIZE)
    assert len({photo.name for photo in photos}) == 16
    assert len(crops) >= 1000
    assert {crop.label for crop in crops} == set(range(16))


def test_classes_are_in_the_order_of_their_folders(photos: tuple[textures.Photo, ...]) -> None:
    names = [photo.name for photo in photos]
    assert names == sorted(names)


def test_no_test_crop_shares_a_pixel_with_a_training_crop(photos: tuple[textures.Photo, ...]) -> None:
    crops = textures.test_crops(photos, SIZE)
    for label, photo in enumerate(photos):
        training = covered(photo, textures.training_positions(photo, SIZE))
        test = covered(photo, np.array([(crop.top, crop.left) for crop in crops if crop.label == label]))
        assert training.any()
        assert test.any()
        assert not (training & test).any(), photo.name


def test_training_positions_are_all_that_touch_no_test_region() -> None:
    region = textures.Region(top=50, left=60, height=SIZE, width=SIZE)
    photo = textures.Photo("small", np.zeros((150, 170, 3), dtype=np.uint8), (region,))
    free = [
        [top, left]
        for top, left in product(range(150 - SIZE + 1), range(170 - SIZE + 1))
        if top + SIZE <= 50 or top >= 50 + SIZE or left + SIZE <= 60 or left >= 60 + SIZE
    ]
    assert textures.training_positions(photo, SIZE).tolist() == free
    everywhere = textures.training_positions(replace(photo, test_regions=()), SIZE)
    assert len(everywhere) == (150 - SIZE + 1) * (170 - SIZE + 1)


def test_crops_are_within_their_region_and_each_photo_has_several(photos: tuple[textures.Photo, ...]) -> None:
    for crop in textures.test_crops(photos, SIZE):
        region = crop.region
        assert region.top <= crop.top <= region.top + region.height - SIZE
        assert region.left <= crop.left <= region.left + region.width - SIZE
    for photo in photos:
        assert len(photo.test_regions) >= 5, photo.name
        height, width, _ = photo.pixels.shape
        for region in photo.test_regions:
            assert region.top + region.height <= height
            assert region.left + region.width <= width


def test_grey_photos_become_rgb(photos: tuple[textures.Photo, ...]) -> None:
    by_name = {photo.name: photo.pixels for photo in photos}
    assert all(pixels.ndim == 3 and pixels.shape[2] == 3 for pixels in by_name.values())
    assert (by_name["brick"] == by_name["brick"][..., :1]).all()
    assert not (by_name["coffee"] == by_name["coffee"][..., :1]).all()


def test_training_batches_contain_the_pixels_of_their_class(photos: tuple[textures.Photo, ...]) -> None:
    images, labels = next(iter(textures.TrainingCrops(photos, SIZE, batch=8, seed=3)))
    assert images.shape == (8, SIZE, SIZE, 3)
    assert images.dtype == torch.uint8
    for image, label in zip(images.numpy(), labels.tolist(), strict=True):
        photo = photos[label]
        candidates = [
            photo.pixels[top : top + SIZE, left : left + SIZE] for top, left in matches(photo, image)
        ]
        assert any((crop == image).all() or (crop[:, ::-1] == image).all() for crop in candidates)


def matches(photo: textures.Photo, image: npt.NDArray[np.uint8]) -> list[list[int]]:
    """Return the training positions where the photo has the image's first pixel, mirrored or not."""
    corners = textures.training_positions(photo, SIZE)
    plain = (photo.pixels[corners[:, 0], corners[:, 1]] == image[0, 0]).all(axis=1)
    mirrored = (photo.pixels[corners[:, 0], corners[:, 1] + SIZE - 1] == image[0, 0]).all(axis=1)
    found: list[list[int]] = corners[plain | mirrored].tolist()
    return found


def test_training_batches_depend_on_the_seed_alone(photos: tuple[textures.Photo, ...]) -> None:
    def drawn(seed: int) -> list[torch.Tensor]:
        return [image for image, _ in islice(textures.TrainingCrops(photos, SIZE, 4, seed), 2)]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_written_images_are_the_test_crops_by_class_and_region(
    photos: tuple[textures.Photo, ...], tmp_path: Path
) -> None:
    some = photos[:3]
    count = textures.write_test_images(some, SIZE, tmp_path)
    items = list_images(tmp_path, [photo.name for photo in some])
    in_memory = textures.TestCrops(some, SIZE)
    assert count == len(items) == 3 * textures.TEST_CROPS_PER_PHOTO
    assert {item.group for item in items} == {
        f"{photo.name}/{region.name}" for photo in some for region in photo.test_regions
    }
    # A file's number is the index of its crop in `test_crops`, across all folders.
    by_number = sorted(items, key=lambda item: item.path.stem)
    pixels = np.stack([np.asarray(Image.open(item.path)) for item in by_number])
    assert (pixels == np.concatenate([in_memory[label][0].numpy() for label in range(3)])).all()
    assert [item.label for item in by_number] == [
        label for label in range(3) for _ in range(textures.TEST_CROPS_PER_PHOTO)
    ]
