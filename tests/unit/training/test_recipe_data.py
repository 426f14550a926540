from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from msgspec import structs

from ccr_deploy.errors import WrongUsageError
from tests.support.training_images import CLASSES, write_folders
from training.data.batches import Sample
from training.recipe import read_recipe
from training.recipe_data import open_data

if TYPE_CHECKING:
    from pathlib import Path

PHOTOS = read_recipe("photos-demo")
IMAGES = structs.replace(PHOTOS, data="images")


def test_a_folder_is_opened_with_the_augmentation_of_the_phase(tmp_path: Path) -> None:
    phase = structs.replace(IMAGES.phase("finetune"), crop_scale=(0.9, 1.0), mirror=False, color_jitter=0.0)
    folder = write_folders(tmp_path)
    plain = open_data(IMAGES, phase, folder, None)
    assert plain.class_names == CLASSES
    images = [plain.training[Sample(0, seed)][0] for seed in range(4)]
    for change in ({"mirror": True}, {"color_jitter": 0.4}, {"crop_scale": (0.1, 0.2)}):
        changed = open_data(IMAGES, structs.replace(phase, **change), folder, None).training
        assert not all(torch.equal(changed[Sample(0, seed)][0], images[seed]) for seed in range(4))


def test_without_a_phase_the_test_images_are_there(tmp_path: Path) -> None:
    found = open_data(IMAGES, None, write_folders(tmp_path), None)
    assert found.test.dataset[0][0].shape == (48, 48, 3)
    assert found.test.name == str(tmp_path / "val")


def test_folders_go_with_recipes_of_images_alone(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match="give --data DIR"):
        open_data(IMAGES, None, None, None)
    with pytest.raises(WrongUsageError, match="omit --data"):
        open_data(PHOTOS, None, tmp_path, None)


def test_photos_have_no_augmentation_of_the_recipe() -> None:
    phase = structs.replace(PHOTOS.phase("finetune"), mirror=False)
    with pytest.raises(WrongUsageError, match="omit crop_scale, mirror and color_jitter"):
        open_data(PHOTOS, phase, None, None)
