from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.data.images import load_image
from ccr_deploy.errors import ImageError
from ccr_deploy.models.presets import preset
from training.data.image_folder import ImageFolder
from training.data.photos import load_photos

if TYPE_CHECKING:
    from pathlib import Path

MODEL = preset("demo")
# Not the image size and not the default filter, so that a data set that ignored either would differ.
PREPROCESSING = Preprocessing(resize_to_cover=(56, 60), resize_filter="bicubic")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for photo in [photo for photo in load_photos() if photo.name in {"chelsea", "coffee"}]:
        (tmp_path / photo.name).mkdir()
        Image.fromarray(photo.pixels).save(tmp_path / photo.name / "whole.jpg")
        turned = Image.fromarray(photo.pixels[:200, :120])
        exif = turned.getexif()
        exif[0x0112] = 6  # rotate by 90 degrees, as from a camera held upright
        turned.save(tmp_path / photo.name / "turned.jpg", exif=exif)
    return tmp_path


def test_evaluation_uses_the_preprocessing_of_production(folder: Path) -> None:
    images = ImageFolder(folder, MODEL, PREPROCESSING, augment=False)
    assert len(images) == 4
    for index, path in enumerate(images.paths):
        image, label = images[index]
        assert np.array_equal(image.numpy(), load_image(path, PREPROCESSING, 48, 48))
        assert images.class_names[label] == path.parent.name


def test_training_uses_another_crop_every_time(folder: Path) -> None:
    images = ImageFolder(folder, MODEL, PREPROCESSING, augment=True)
    torch.manual_seed(0)
    first, second = images[0][0], images[0][0]
    assert first.shape == second.shape == (48, 48, 3)
    assert first.dtype == torch.uint8
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(first, images[0][0])


def test_labels_follow_the_class_names(folder: Path) -> None:
    names = ("unseen", "coffee", "chelsea")
    images = ImageFolder(folder, MODEL, PREPROCESSING, names, augment=False)
    assert {path.parent.name: label for path, label in zip(images.paths, images.labels, strict=True)} == {
        path.name: names.index(path.name) for path in folder.iterdir()
    }


def test_a_loader_makes_batches_for_the_modules(folder: Path) -> None:
    loader = DataLoader(ImageFolder(folder, MODEL, PREPROCESSING, augment=True), batch_size=4)
    images, labels = next(iter(loader))
    assert images.shape == (4, 48, 48, 3)
    assert labels.tolist() == [0, 0, 1, 1]


def test_an_image_in_no_class_folder_is_refused(folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(folder / "stray.png")
    with pytest.raises(ImageError, match=r"stray\.png: is in no class folder"):
        ImageFolder(folder, MODEL, PREPROCESSING, augment=False)
