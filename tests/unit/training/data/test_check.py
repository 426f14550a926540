from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import TensorDataset

from ccr_deploy.errors import ImageError, WrongUsageError
from ccr_deploy.models.presets import default_preprocessing, preset
from tests.support.training_images import write_folders, write_shards
from training.data.augmentation import Augmentation
from training.data.check import DataCheck, check_data, render
from training.data.folders import open_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ccr_deploy.core.progress import Advance
    from training.data.open import TrainingData

MODEL = preset("demo")


class Recorded:
    """Records the units that each task advances by."""

    def __init__(self) -> None:
        self.tasks: dict[str, list[int]] = {}

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        self.tasks[description] = [total, 0]

        def advance(units: int) -> None:
            self.tasks[description][1] += units

        yield advance


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "data")


def opened(folder: Path) -> TrainingData:
    return open_folder(folder, None, MODEL, default_preprocessing(MODEL), Augmentation())


def checked(folder: Path, workers: int = 0) -> DataCheck:
    return check_data(opened(folder), folder.parent / "out" / "images.png", workers)


@pytest.mark.parametrize("write", [write_folders, write_shards], ids=["folders", "shards"])
@pytest.mark.parametrize("workers", [0, 2])
def test_sound_data_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object, workers: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_folders(tmp_path / "data") if write is write_folders else write_shards(tmp_path / "data")
    check = checked(folder, workers)
    assert check.passed
    assert render(check) == [
        "train: 12 images, 3 classes, 4 per class",
        "val: 6 images, 3 classes, 2 per class",
        f"{tmp_path}/out/images.png: 64 training images, augmented as in training",
    ]


def test_the_picture_shows_augmented_training_images(data: Path) -> None:
    path = data.parent / "out" / "images.png"
    check_data(opened(data), path, 0)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (8 * 50 + 2, 8 * 50 + 2, 3)
    assert (pixels[:, :2] == 255).all()
    tiles = {
        pixels[top : top + 48, left : left + 48].tobytes()
        for top in range(2, 400, 50)
        for left in range(2, 400, 50)
    }
    assert len(tiles) > 12  # more than there are images, so they are augmented
    first = path.read_bytes()
    check_data(opened(data), path, 2)
    assert path.read_bytes() == first


@pytest.mark.parametrize("workers", [0, 2])
def test_unusable_images_are_listed(data: Path, workers: int) -> None:
    for path in (data / "train").rglob("*.JPEG"):
        path.write_bytes(path.read_bytes()[:1000])
    (data / "val" / "coffee" / "0.JPEG").write_text("no image")
    Image.new("RGB", (4, 4)).save(data / "val" / "coffee" / "1.JPEG")
    check = checked(data, workers)
    assert not check.passed
    assert len(check.training.unusable) == 12
    assert all("cannot be decoded" in line and "\n" not in line for line in check.training.unusable)
    lines = render(check)
    assert "Images of train that cannot be used: 12" in lines
    assert "  … and 2 more" in lines
    assert sum("train/" in line for line in lines) == 10
    assert f"  {data}/val/coffee/0.JPEG: not an image (JPEG, PNG, WebP, BMP, TIFF or GIF)" in lines
    assert any("1.JPEG: 4x4 pixels are too few" in line for line in lines)
    assert check.picture is None
    assert not (data.parent / "out").exists()


def test_classes_are_compared(data: Path) -> None:
    shutil.rmtree(data / "val" / "chelsea")
    (data / "train" / "coffee" / "0.JPEG").unlink()
    lines = render(checked(data))
    assert lines[:3] == [
        "train: 11 images, 3 classes, 3 (coffee) to 4 (astronaut) per class",
        "val: 4 images, 2 classes, 2 per class",
        "Classes without images in val: 1 (chelsea)",
    ]


def test_images_in_both_folders_are_listed(data: Path) -> None:
    shutil.copyfile(data / "train" / "coffee" / "2.JPEG", data / "val" / "coffee" / "copy.JPEG")
    check = checked(data)
    assert check.in_both == ((f"{data}/train/coffee/2.JPEG", f"{data}/val/coffee/copy.JPEG"),)
    assert check.passed
    assert "Images of val that are in train too: 1" in render(check)


def test_progress_counts_images(data: Path) -> None:
    progress = Recorded()
    check_data(opened(data), data.parent / "images.png", 0, progress)
    assert progress.tasks == {"Check training images": [12, 12], "Check test images": [6, 6]}


def test_a_picture_that_cannot_be_written_is_one_line(data: Path) -> None:
    with pytest.raises(ImageError, match=r"images\.png: cannot be written"):
        check_data(opened(data), data / "train" / "coffee" / "0.JPEG" / "images.png", 0)


def test_data_that_are_no_files_are_refused(data: Path) -> None:
    with pytest.raises(WrongUsageError, match="--check checks the image files"):
        check_data(replace(opened(data), training=TensorDataset()), data.parent / "images.png", 0)
