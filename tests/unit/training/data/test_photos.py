from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from ccr_deploy.data.images import list_images
from training.data import photos as photo_set
from training.data.batches import Sample

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

SIZE = 48


@pytest.fixture(scope="module")
def photos() -> tuple[photo_set.Photo, ...]:
    return photo_set.load_photos()


def covered(photo: photo_set.Photo, corners: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
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


def test_there_are_enough_classes_and_crops(photos: tuple[photo_set.Photo, ...]) -> None:
    crops = photo_set.test_crops(photos, SIZE)
    assert len({photo.name for photo in photos}) == 16
    assert len(crops) >= 1000
    assert {crop.label for crop in crops} == set(range(16))


def test_classes_are_in_the_order_of_their_folders(photos: tuple[photo_set.Photo, ...]) -> None:
    names = [photo.name for photo in photos]
    assert names == sorted(names)


def test_no_test_crop_shares_a_pixel_with_a_training_crop(photos: tuple[photo_set.Photo, ...]) -> None:
    crops = photo_set.test_crops(photos, SIZE)
    for label, photo in enumerate(photos):
        training = covered(photo, photo_set.training_positions(photo, SIZE))
        test = covered(photo, np.array([(crop.top, crop.left) for crop in crops if crop.label == label]))
        assert training.any()
        assert test.any()
        assert not (training & test).any(), photo.name


def test_training_positions_are_all_that_touch_no_test_region() -> None:
    region = photo_set.Region(top=50, left=60, height=SIZE, width=SIZE)
    photo = photo_set.Photo("small", np.zeros((150, 170, 3), dtype=np.uint8), (region,))
    free = [
        [top, left]
        for top, left in product(range(150 - SIZE + 1), range(170 - SIZE + 1))
        if top + SIZE <= 50 or top >= 50 + SIZE or left + SIZE <= 60 or left >= 60 + SIZE
    ]
    assert photo_set.training_positions(photo, SIZE).tolist() == free
    everywhere = photo_set.training_positions(replace(photo, test_regions=()), SIZE)
    assert len(everywhere) == (150 - SIZE + 1) * (170 - SIZE + 1)


def test_crops_are_within_their_region_and_each_photo_has_several(
    photos: tuple[photo_set.Photo, ...],
) -> None:
    for crop in photo_set.test_crops(photos, SIZE):
        region = crop.region
        assert region.top <= crop.top <= region.top + region.height - SIZE
        assert region.left <= crop.left <= region.left + region.width - SIZE
    for photo in photos:
        assert len(photo.test_regions) >= 5, photo.name
        height, width, _ = photo.pixels.shape
        for region in photo.test_regions:
            assert region.top + region.height <= height
            assert region.left + region.width <= width


def test_grey_photos_become_rgb(photos: tuple[photo_set.Photo, ...]) -> None:
    by_name = {photo.name: photo.pixels for photo in photos}
    assert all(pixels.ndim == 3 and pixels.shape[2] == 3 for pixels in by_name.values())
    assert (by_name["brick"] == by_name["brick"][..., :1]).all()
    assert not (by_name["coffee"] == by_name["coffee"][..., :1]).all()


def test_training_crops_contain_the_pixels_of_their_class(photos: tuple[photo_set.Photo, ...]) -> None:
    crops = photo_set.TrainingCrops(photos, SIZE)
    for sample in (Sample(0, 3), Sample(5, 3), Sample(17, 4), Sample(len(crops) - 1, 5)):
        image, label = crops[sample]
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == torch.uint8
        photo, pixels = photos[label], image.numpy()
        candidates = [
            photo.pixels[top : top + SIZE, left : left + SIZE] for top, left in matches(photo, pixels)
        ]
        assert any((crop == pixels).all() or (crop[:, ::-1] == pixels).all() for crop in candidates)


def matches(photo: photo_set.Photo, image: npt.NDArray[np.uint8]) -> list[list[int]]:
    """Return the training positions where the photo has the image's first pixel, mirrored or not."""
    corners = photo_set.training_positions(photo, SIZE)
    plain = (photo.pixels[corners[:, 0], corners[:, 1]] == image[0, 0]).all(axis=1)
    mirrored = (photo.pixels[corners[:, 0], corners[:, 1] + SIZE - 1] == image[0, 0]).all(axis=1)
    found: list[list[int]] = corners[plain | mirrored].tolist()
    return found


def test_a_training_crop_depends_on_its_key_alone(photos: tuple[photo_set.Photo, ...]) -> None:
    first, again = (photo_set.TrainingCrops(photos, SIZE) for _ in range(2))
    key = Sample(3, 8)
    first[Sample(3, 9)]
    assert torch.equal(first[key][0], again[key][0])
    assert not torch.equal(first[key][0], first[Sample(3, 9)][0])


def test_an_epoch_has_as_many_crops_of_each_photo(photos: tuple[photo_set.Photo, ...]) -> None:
    crops = photo_set.TrainingCrops(photos, SIZE)
    labels = [crops[Sample(index, 0)][1] for index in range(len(crops))]
    assert np.bincount(labels).tolist() == [photo_set.TRAINING_CROPS_PER_PHOTO] * len(photos)


def test_written_images_are_the_test_crops_by_class_and_region(
    photos: tuple[photo_set.Photo, ...], tmp_path: Path
) -> None:
    some = photos[:3]
    count = photo_set.write_test_images(some, SIZE, tmp_path)
    items = list_images(tmp_path, [photo.name for photo in some])
    in_memory = photo_set.TestCrops(some, SIZE)
    assert count == len(items) == 3 * photo_set.TEST_CROPS_PER_PHOTO
    assert {item.group for item in items} == {
        f"{photo.name}/{region.name}" for photo in some for region in photo.test_regions
    }
    # A file's number is the index of its crop in `test_crops`, across all folders.
    by_number = sorted(items, key=lambda item: item.path.stem)
    pixels = np.stack([np.asarray(Image.open(item.path)) for item in by_number])
    assert (pixels == np.stack([in_memory[index][0].numpy() for index in range(count)])).all()
    assert [item.label for item in by_number] == [
        label for label in range(3) for _ in range(photo_set.TEST_CROPS_PER_PHOTO)
    ]
