from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.errors import CcrDeployError
from ccr_deploy.models.presets import default_preprocessing, preset
from tests.support.training_images import CLASSES, write_folders, write_shards
from training.data.augmentation import Augmentation
from training.data.batches import Sample
from training.data.folders import open_folder

if TYPE_CHECKING:
    from pathlib import Path

    from training.data.open import TrainingData

MODEL = preset("demo")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=[write_folders, write_shards], ids=["folders", "shards"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param(tmp_path / "data")


def opened(folder: Path, class_list: Path | None = None) -> TrainingData:
    return open_folder(folder, class_list, MODEL, default_preprocessing(MODEL), Augmentation())


def refusal(folder: Path, class_list: Path | None = None) -> str:
    with pytest.raises(CcrDeployError) as caught:
        opened(folder, class_list)
    message = str(caught.value)
    assert "\n" not in message
    return message


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_training_and_test_images_are_found(data: Path) -> None:
    found = opened(data)
    assert found.class_names == CLASSES
    assert found.summary == "12 training and 6 test images, 3 classes"
    assert found.training[Sample(11, 0)][1] == 2
    assert [found.test.dataset[index][1] for index in range(6)] == [0, 0, 1, 1, 2, 2]
    assert len(found.test.groups) == 6


def test_the_folder_test_is_used_if_there_is_no_val(data: Path) -> None:
    fingerprint = opened(data).fingerprint
    shutil.copytree(data / "val", data / "test")
    (data / "test" / "no-class.txt").touch()
    assert opened(data).fingerprint == fingerprint
    shutil.rmtree(data / "val")
    assert opened(data).summary == "12 training and 6 test images, 3 classes"


def test_a_class_list_selects_classes_in_sorted_order(data: Path, tmp_path: Path) -> None:
    found = opened(data, written(tmp_path / "list.txt", "coffee\nastronaut\n"))
    assert found.class_names == ("astronaut", "coffee")
    assert found.summary == "8 training and 4 test images, 2 classes"
    assert [found.test.dataset[index][1] for index in range(4)] == [0, 0, 1, 1]
    assert found.fingerprint != opened(data).fingerprint


def test_missing_classes_of_a_list_are_named(data: Path, tmp_path: Path) -> None:
    names = written(tmp_path / "list.txt", "coffee\nb\na\nd\nc\n")
    assert refusal(data, names) == (
        f"{data}/train: 4 of the 5 classes in {names} have no images: a, b, c, …: "
        "add them or remove them from the list"
    )


def test_a_list_of_which_no_class_exists_is_refused(data: Path, tmp_path: Path) -> None:
    names = written(tmp_path / "list.txt", "a\nb\n")
    assert f"{data}/train: 2 of the 2 classes in {names} have no images: a, b:" in refusal(data, names)


def test_a_class_that_only_the_test_images_have_is_refused(data: Path, tmp_path: Path) -> None:
    other = write_folders(tmp_path / "other", ["chelsea", "coffee"])
    shutil.rmtree(data / "train")
    (other / "train").rename(data / "train")
    assert f"{data}/val: 1 of 3" in refusal(data)
    assert "not classes of the model: astronaut" in refusal(data)


def test_test_images_may_lack_a_class(tmp_path: Path) -> None:
    folder = write_folders(tmp_path)
    shutil.rmtree(folder / "val" / "astronaut")
    found = opened(folder)
    assert [found.test.dataset[index][1] for index in range(4)] == [1, 1, 2, 2]


def test_folders_that_are_missing_are_named(data: Path) -> None:
    shutil.rmtree(data / "val")
    assert f"{data}: has no folder val or test: put test images there: as CLASS/image.jpg" in refusal(data)
    shutil.rmtree(data / "train")
    assert f"{data}: has no folder train" in refusal(data)
    shutil.rmtree(data)
    assert f"{data}: no such folder" in refusal(data)


def test_a_folder_that_is_neither_layout_is_explained(tmp_path: Path) -> None:
    folder = write_folders(tmp_path)
    for path in (folder / "val").rglob("*.JPEG"):
        path.rename(folder / "val" / f"{path.parent.name}_{path.name}")
    for name in CLASSES:
        (folder / "val" / name).rmdir()
    assert "val: has neither class folders nor shards: put images there: as CLASS/image.jpg" in refusal(
        folder
    )
    (folder / "val" / "part.tar.gz").touch()
    assert "val/part.tar.gz: is compressed: decompress it" in refusal(folder)
    (folder / "train" / "part.tar").touch()
    assert "train: has both shards (part.tar) and folders" in refusal(folder)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    assert "has one class, coffee: at least 2" in refusal(write_folders(tmp_path, ["coffee"]))
