"""A data set without a download: crops of scikit-image's photos, to be classified by the photo they are from.

Every photo is a class. A photo is divided into blocks; every fourth block is a test region, and no training
crop shares a pixel with one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import skimage
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ccr_deploy.data.images import open_rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from training.data.batches import Sample

PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
    "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
"""Photos in the scikit-image package; those left out are too small or line art."""

BLOCK = 72
"""Side of a block in pixels: larger than the demo's crops of 48, so that test crops in a region differ."""
TEST_CROPS_PER_PHOTO = 80
TRAINING_CROPS_PER_PHOTO = 80
"""Crops of each photo in one epoch; all of them differ from epoch to epoch."""
CALIBRATION_CROPS_PER_PHOTO = 16


@dataclass(frozen=True)
class Region:
    """A rectangle of a photo: its first row and column, its height and width, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """The region's name, used as a folder's name."""
        return f"r{self.top:04d}c{self.left:04d}"


@dataclass(frozen=True)
class Photo:
    """One class: a photo ``uint8 [H, W, 3]`` and its test regions."""

    name: str
    pixels: npt.NDArray[np.uint8]
    test_regions: tuple[Region, ...]


@dataclass(frozen=True)
class TestCrop:
    """A test crop: its class, its first row and column, and the region that it is in."""

    label: int
    top: int
    left: int
    region: Region


def load_photos() -> tuple[Photo, ...]:
    """Load the photos as RGB, with their test regions."""
    folder = Path(skimage.__file__).parent / "data"
    photos = []
    for file_name in PHOTOS:
        pixels = np.asarray(open_rgb(folder / file_name))
        photos.append(Photo(Path(file_name).stem, pixels, test_regions(*pixels.shape[:2])))
    return tuple(photos)


def test_regions(height: int, width: int) -> tuple[Region, ...]:
    """Return every fourth block of a photo, shifted by two from one row of blocks to the next."""
    return tuple(
        Region(row * BLOCK, column * BLOCK, BLOCK, BLOCK)
        for row in range(height // BLOCK)
        for column in range(width // BLOCK)
        if (column + 2 * row) % 4 == 0
    )


def test_crops(photos: Sequence[Photo], size: int) -> list[TestCrop]:
    """Choose 80 test crops of each photo, spread evenly over its test regions; the same in every run."""
    generator = np.random.default_rng(0)
    crops = []
    for label, photo in enumerate(photos):
        for number in range(TEST_CROPS_PER_PHOTO):
            region = photo.test_regions[number % len(photo.test_regions)]
            top = region.top + int(generator.integers(region.height - size + 1))
            left = region.left + int(generator.integers(region.width - size + 1))
            crops.append(TestCrop(label, top, left, region))
    return crops


def write_test_images(photos: Sequence[Photo], size: int, folder: Path) -> int:
    """Write the test crops as ``class/region/number.png`` and return their number.

    Args:
        photos: the photos.
        size: side of a crop in pixels.
        folder: the folder to write to.
    """
    crops = test_crops(photos, size)
    for number, crop in enumerate(crops):
        photo = photos[crop.label]
        path = folder / photo.name / crop.region.name / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo.pixels[crop.top : crop.top + size, crop.left : crop.left + size]).save(path)
    return len(crops)


def write_calibration_images(photos: Sequence[Photo], size: int, folder: Path) -> int:
    """Write 16 training crops of each photo as ``class/number.png`` and return their number.

    Args:
        photos: the photos.
        size: side of a crop in pixels.
        folder: the folder to write to.
    """
    for photo in photos:
        positions = training_positions(photo, size)
        chosen = np.linspace(0, len(positions) - 1, CALIBRATION_CROPS_PER_PHOTO).round().astype(int)
        (folder / photo.name).mkdir(parents=True, exist_ok=True)
        for number, (top, left) in enumerate(positions[chosen]):
            crop = photo.pixels[top : top + size, left : left + size]
            Image.fromarray(crop).save(folder / photo.name / f"{number:04d}.png")
    return len(photos) * CALIBRATION_CROPS_PER_PHOTO


def training_positions(photo: Photo, size: int) -> npt.NDArray[np.int64]:
    """Return the first rows and columns of all possible training crops: ``int64 [positions, 2]``."""
    blocked = np.zeros(photo.pixels.shape[:2], dtype=np.int64)
    for region in photo.test_regions:
        blocked[region.top : region.top + region.height, region.left : region.left + region.width] = 1
    # A summed-area table gives the number of blocked pixels of all windows at once.
    table = np.pad(blocked.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
    return np.argwhere(inside == 0)


class TrainingCrops(Dataset[tuple[Tensor, int]]):
    """Random crops ``uint8 [size, size, 3]`` of the photos, with their labels.

    An epoch has 80 crops of each photo. A crop's place is drawn, and it is mirrored with probability 0.5.
    """

    def __init__(self, photos: Sequence[Photo], size: int) -> None:
        self.photos, self.size = photos, size
        self.positions = [training_positions(photo, size) for photo in photos]

    def __len__(self) -> int:
        return len(self.photos) * TRAINING_CROPS_PER_PHOTO

    def __getitem__(self, sample: Sample) -> tuple[Tensor, int]:
        label = sample.index % len(self.photos)
        generator = np.random.default_rng(sample.seed)
        top, left = self.positions[label][generator.integers(len(self.positions[label]))]
        crop = self.photos[label].pixels[top : top + self.size, left : left + self.size]
        if generator.random() < 0.5:
            crop = crop[:, ::-1]
        return torch.from_numpy(crop.copy()), label


class TestCrops(Dataset[tuple[Tensor, int]]):
    """The test crops ``uint8 [size, size, 3]`` with their labels, in the order of `test_crops`."""

    def __init__(self, photos: Sequence[Photo], size: int) -> None:
        self.photos, self.size = photos, size
        self.crops = test_crops(photos, size)
        self.groups = [f"{photos[crop.label].name}/{crop.region.name}" for crop in self.crops]

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        crop = self.crops[index]
        pixels = self.photos[crop.label].pixels
        return (
            torch.from_numpy(
                pixels[crop.top : crop.top + self.size, crop.left : crop.left + self.size].copy()
            ),
            crop.label,
        )
