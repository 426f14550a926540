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
from tests.support.training_images import photo
from training.data.augmentation import Augmentation
from training.data.batches import Sample
from training.data.image_folder import ImageFolder

if TYPE_CHECKING:
    from pathlib import Path

MODEL = preset("demo")
# Not the image size and not the default filter, so that a data set that ignored either would differ.
PREPROCESSING = Preprocessing(resize_to_cover=(56, 60), resize_filter="bicubic")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("chelsea", "coffee"):
        (tmp_path / name).mkdir()
        photo(name).save(tmp_path / name / "whole.jpg")
        turned = photo(name).crop((0, 0, 120, 200))
        exif = turned.getexif()
        exif[0x0112] = 6  # rotate by 90 degrees, as from a camera held upright
        turned.save(tmp_path / name / "turned.jpg", exif=exif)
    return tmp_path


def test_evaluation_uses_the_preprocessing_of_production(folder: Path) -> None:
    images = ImageFolder(folder, MODEL, PREPROCESSING, augmentation=Augmentation())
    assert len(images) == 4
    for index in range(4):
        image, label = images[index]
        path = images.path(index)
        assert np.array_equal(image.numpy(), load_image(path, PREPROCESSING, 48, 48))
        assert images.class_names[label] == path.parent.name


def test_a_training_image_is_a_function_of_its_seed(folder: Path) -> None:
    images = ImageFolder(folder, MODEL, PREPROCESSING, augmentation=Augmentation())
    first, label = images[Sample(0, 1)]
    assert first.shape == (48, 48, 3)
    assert first.dtype == torch.uint8
    assert label == 0
    assert not torch.equal(first, images[Sample(0, 2)][0])
    assert torch.equal(first, images[Sample(0, 1)][0])


def test_loader_workers_give_the_images_of_the_main_process(folder: Path) -> None:
    images = ImageFolder(folder, MODEL, PREPROCESSING, augmentation=Augmentation(color_jitter=0.4))
    keys = [Sample(index, seed) for seed in range(3) for index in range(4)]
    batches = DataLoader(images, sampler=keys, batch_size=3, num_workers=2)
    assert torch.equal(
        torch.cat([batch for batch, _ in batches]), torch.stack([images[key][0] for key in keys])
    )


def test_labels_follow_the_class_names(folder: Path) -> None:
    names = ("unseen", "coffee", "chelsea")
    images = ImageFolder(folder, MODEL, PREPROCESSING, names)
    assert {images.path(index).parent.name: label for index, label in enumerate(images.labels)} == {
        path.name: names.index(path.name) for path in folder.iterdir()
    }
    assert images.counts.tolist() == [0, 2, 2]


def test_other_classes_are_ignored_or_refused(folder: Path) -> None:
    images = ImageFolder(folder, MODEL, PREPROCESSING, ["coffee"], ignore_others=True)
    assert {images.path(index).parent.name for index in range(len(images))} == {"coffee"}
    with pytest.raises(ImageError, match="1 of 2 sub-folders are not classes of the model: chelsea"):
        ImageFolder(folder, MODEL, PREPROCESSING, ["coffee"])


def test_images_of_a_deeper_folder_are_one_group(folder: Path) -> None:
    (folder / "coffee" / "region").mkdir()
    for name in ("whole.jpg", "turned.jpg"):
        (folder / "coffee" / name).rename(folder / "coffee" / "region" / name)
    images = ImageFolder(folder, MODEL, PREPROCESSING)
    assert images.groups == ("chelsea/turned.jpg", "chelsea/whole.jpg", "coffee/region", "coffee/region")


def test_a_name_that_is_not_unicode_is_read(folder: Path) -> None:
    (folder / "coffee" / "whole.jpg").rename(folder / "coffee" / "\udcff.jpg")
    images = ImageFolder(folder, MODEL, PREPROCESSING)
    assert len([images[index] for index in range(len(images))]) == 4


def test_a_loader_makes_batches_for_the_modules(folder: Path) -> None:
    images, labels = next(iter(DataLoader(ImageFolder(folder, MODEL, PREPROCESSING), batch_size=4)))
    assert images.shape == (4, 48, 48, 3)
    assert labels.tolist() == [0, 0, 1, 1]


def test_an_image_in_no_class_folder_is_refused(folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(folder / "stray.png")
    with pytest.raises(ImageError, match=r"stray\.png: is in no class folder"):
        ImageFolder(folder, MODEL, PREPROCESSING)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("key", [0, Sample(0, 0)], ids=["evaluation", "training"])
def test_an_unreadable_image_is_one_line_from_every_process(
    folder: Path, workers: int, key: int | Sample
) -> None:
    path = folder / "chelsea" / "turned.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    images = ImageFolder(folder, MODEL, PREPROCESSING, augmentation=Augmentation())
    with pytest.raises(ImageError) as caught:
        list(DataLoader(images, sampler=[key], num_workers=workers))
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be decoded")
    assert "find all such images with --check, and replace them" in message
    assert "\n" not in message


def test_the_fingerprint_changes_with_names_and_labels(folder: Path) -> None:
    before = ImageFolder(folder, MODEL, PREPROCESSING).fingerprint
    assert ImageFolder(folder, MODEL, PREPROCESSING).fingerprint == before
    assert ImageFolder(folder, MODEL, PREPROCESSING, ["coffee", "chelsea"]).fingerprint != before
    (folder / "coffee" / "whole.jpg").rename(folder / "coffee" / "a.jpg")
    assert ImageFolder(folder, MODEL, PREPROCESSING).fingerprint != before
