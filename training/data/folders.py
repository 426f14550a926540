"""Open the images of a folder that is divided into training and test images."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ccr_deploy.errors import ImageError
from training.data.class_list import read_class_list, short_list
from training.data.image_folder import ImageFolder
from training.data.open import TestImages, TrainingData
from training.data.shard_folder import ShardFolder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import ModelConfig
    from training.data.augmentation import Augmentation
    from training.data.labelled_images import LabelledImages

TRAINING_FOLDER = "train"
TEST_FOLDERS = ("val", "test")
"""The first one that exists is used: the folder `test` of ImageNet has no labels."""

LAYOUT = "as CLASS/image.jpg or in shards (*.tar)"


def open_folder(
    folder: Path,
    class_list: Path | None,
    model: ModelConfig,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
) -> TrainingData:
    """Open the images in ``folder/train`` and ``folder/val`` (or ``folder/test``).

    Classes are numbered in the order of their sorted names, as in torchvision, with a class list too.

    Args:
        folder: the folder that has both; each has one folder for each class, or shards.
        class_list: a file with the classes to select, one per line; None for all in ``folder/train``.
        model: the configuration of the model, for the image size.
        preprocessing: the model's preprocessing.
        augmentation: the random changes of training images; None to test only.

    Raises:
        ImageError: if a folder or class is missing, or a folder has no images that can be used.
        WrongUsageError: if the class list cannot be read.
    """
    training_folder, test_folder = _splits(folder)
    chosen = tuple(sorted(read_class_list(class_list))) if class_list else ()
    training = open_images(
        training_folder, model, preprocessing, chosen, ignore_others=bool(chosen), augmentation=augmentation
    )
    if len(training.class_names) < 2:
        raise ImageError(
            f"{training_folder}: has one class, {training.class_names[0]}: at least 2 are needed"
        )
    test = open_images(test_folder, model, preprocessing, training.class_names, ignore_others=bool(chosen))
    if class_list:
        for images, place in ((training, training_folder), (test, test_folder)):
            _check_complete(images, place, class_list)
    return TrainingData(
        training=training,
        test=TestImages(str(test_folder), test, test.groups),
        class_names=training.class_names,
        fingerprint=hashlib.sha256(f"{training.fingerprint} {test.fingerprint}".encode()).hexdigest(),
        summary=f"{len(training):,} training and {len(test):,} test images, "
        f"{len(training.class_names)} classes",
    )


def open_images(
    folder: Path,
    model: ModelConfig,
    preprocessing: Preprocessing,
    class_names: Sequence[str] = (),
    *,
    ignore_others: bool = False,
    augmentation: Augmentation | None = None,
) -> LabelledImages:
    """Open a folder that has one folder for each class, or shards.

    Args:
        folder: the folder.
        model: the configuration of the model, for the image size.
        preprocessing: the model's preprocessing.
        class_names: names of the classes 0, 1, …; if empty, the sorted names of those that the folder has.
        ignore_others: whether to skip images of other classes than `class_names` instead of refusing them.
        augmentation: the random changes in training; None if the images are for evaluation alone.

    Raises:
        ImageError: if it has neither images nor shards, or they cannot be used.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    content = sorted(folder.iterdir())
    shards = [path for path in content if path.suffix == ".tar"]
    has_folders = any(path.is_dir() for path in content)
    if shards and has_folders:
        raise ImageError(f"{folder}: has both shards ({shards[0].name}) and folders: move one kind elsewhere")
    if packed := [path for path in content if path.name.endswith((".tar.gz", ".tgz", ".tar.zst"))]:
        raise ImageError(f"{packed[0]}: is compressed: decompress it, so that its name ends in .tar")
    if not (shards or has_folders):
        raise ImageError(f"{folder}: has neither class folders nor shards: put images there: {LAYOUT}")
    kind = ShardFolder if shards else ImageFolder
    return kind(
        folder,
        model,
        preprocessing,
        class_names,
        ignore_others=ignore_others,
        augmentation=augmentation,
    )


def _splits(folder: Path) -> tuple[Path, Path]:
    """Return the folders of training and test images.

    Raises:
        ImageError: if one does not exist.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder: give the folder that has {TRAINING_FOLDER}/ and val/")
    training = folder / TRAINING_FOLDER
    if not training.is_dir():
        raise ImageError(f"{folder}: has no folder {TRAINING_FOLDER}: put training images there: {LAYOUT}")
    found = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    if not found:
        raise ImageError(
            f"{folder}: has no folder {' or '.join(TEST_FOLDERS)}: put test images there: {LAYOUT}"
        )
    return training, found[0]


def _check_complete(images: LabelledImages, folder: Path, class_list: Path) -> None:
    """Raise ImageError if a class in the class list has no images."""
    missing = [name for name, count in zip(images.class_names, images.counts, strict=True) if not count]
    if missing:
        raise ImageError(
            f"{folder}: {len(missing)} of the {len(images.class_names)} classes in {class_list} have no "
            f"images: {short_list(missing)}: add them or remove them from the list"
        )
