from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from webdataset import TarWriter

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.errors import ImageError
from ccr_deploy.models.presets import preset
from tests.support.training_images import CLASSES, crops, write_folders, write_shards
from training.data.augmentation import Augmentation
from training.data.batches import Sample
from training.data.image_folder import ImageFolder
from training.data.shard_folder import ShardFolder
from training.data.shard_index import index_folder, index_shard

MODEL = preset("demo")
PREPROCESSING = Preprocessing(resize_to_cover=(56, 60))
PHOTO = next(crops("coffee", "train"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_shard(path: Path, *samples: dict[str, str | bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(str(path), encoder=False) as writer:
        for sample in samples:
            writer.write(
                {name: value if name.startswith("__") else _bytes(value) for name, value in sample.items()}
            )
    return path


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def labels_of(folder: Path, class_names: tuple[str, ...] = ()) -> list[str]:
    images = ShardFolder(folder, MODEL, PREPROCESSING, class_names)
    return [images.class_names[images[index][1]] for index in range(len(images))]


@pytest.mark.parametrize("suffix", ["cls", "txt", "json"])
def test_shards_give_what_folders_give(tmp_path: Path, suffix: str) -> None:
    folders = ImageFolder(
        write_folders(tmp_path / "a") / "train", MODEL, PREPROCESSING, augmentation=Augmentation()
    )
    shards = ShardFolder(
        write_shards(tmp_path / "b", suffix=suffix) / "train",
        MODEL,
        PREPROCESSING,
        augmentation=Augmentation(),
    )
    assert shards.class_names == folders.class_names == CLASSES
    assert len(shards) == len(folders) == 12
    for key in [*range(12), *(Sample(index, index) for index in range(12))]:
        assert torch.equal(shards[key][0], folders[key][0])
        assert shards[key][1] == folders[key][1]
    assert str(shards.path(5)).endswith("train/train-001.tar/chelsea_1.jpg")


def test_workers_that_are_forked_read_independently(tmp_path: Path) -> None:
    images = ShardFolder(write_shards(tmp_path) / "train", MODEL, PREPROCESSING)
    expected = torch.stack([images[index][0] for index in range(12)])  # opens the shards before the fork
    keys = list(range(12)) * 8
    found = torch.cat([batch for batch, _ in DataLoader(images, sampler=keys, batch_size=4, num_workers=2)])
    assert torch.equal(found, expected.repeat(8, 1, 1, 1))


def test_numbers_stand_for_the_lines_of_the_names(tmp_path: Path) -> None:
    train = write_shards(tmp_path, labels=(2, 0, 10)) / "train"
    assert ShardFolder(train, MODEL, PREPROCESSING).class_names == ("0", "2", "10")
    assert labels_of(train) == ["2"] * 4 + ["0"] * 4 + ["10"] * 4
    with pytest.raises(ImageError, match=r"labels in its shards are numbers.*classes\.txt"):
        labels_of(train, CLASSES)
    (tmp_path / "classes.txt").write_text("chelsea\nx\nastronaut\n" + "".join(f"c{n}\n" for n in range(7)))
    with pytest.raises(ImageError, match="has 10 classes, but the shards have the label 10"):
        labels_of(train)
    with (tmp_path / "classes.txt").open("a") as file:
        file.write("coffee\n")
    assert labels_of(train) == ["astronaut"] * 4 + ["chelsea"] * 4 + ["coffee"] * 4
    assert ShardFolder(train, MODEL, PREPROCESSING).class_names == CLASSES


def test_other_classes_are_ignored_or_refused(tmp_path: Path) -> None:
    train = write_shards(tmp_path) / "train"
    images = ShardFolder(train, MODEL, PREPROCESSING, ["coffee", "chelsea"], ignore_others=True)
    assert images.counts.tolist() == [4, 4]
    names = [images.class_names[images[index][1]] for index in range(len(images))]
    assert [images.path(index).name.split("_")[0] for index in range(len(images))] == names
    with pytest.raises(
        ImageError, match="1 of 3 classes in the shards are not classes of the model: astronaut"
    ):
        labels_of(train, ("coffee", "chelsea"))


def test_the_index_is_kept_until_a_shard_changes(tmp_path: Path) -> None:
    train = write_shards(tmp_path) / "train"
    first = index_folder(train)
    (stored,) = (tmp_path / "cache" / "ccr-deploy" / "shards").iterdir()
    written = stored.stat()
    assert index_folder(train) == first
    assert stored.stat() == written
    changed = write_shard(train / "train-001.tar", {"__key__": "new", "jpg": PHOTO, "cls": "coffee"})
    assert [len(shard.images) for shard in index_folder(train)] == [5, 1, 2]
    changed.unlink()
    assert [len(shard.images) for shard in index_folder(train)] == [5, 2]


def test_the_kept_index_is_used(tmp_path: Path) -> None:
    train = write_shards(tmp_path) / "train"
    first = index_folder(train)
    shard = train / "train-000.tar"
    status = shard.stat()
    shard.write_bytes(bytes(status.st_size))  # unreadable now, but size and time of change are the same
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert index_folder(train) == first


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x91\x80"])
def test_a_damaged_index_is_made_again(tmp_path: Path, content: bytes) -> None:
    train = write_shards(tmp_path) / "train"
    first = index_folder(train)
    (stored,) = (tmp_path / "cache" / "ccr-deploy" / "shards").iterdir()
    stored.write_bytes(content)
    assert index_folder(train) == first
    assert stored.read_bytes() != content


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a folder should be")
    assert len(index_folder(write_shards(tmp_path) / "train")) == 3


def test_members_that_are_no_samples_are_skipped(tmp_path: Path) -> None:
    shard = write_shard(
        tmp_path / "a.tar",
        {"__key__": "__info__", "json": "{}"},
        {"__key__": "description", "txt": "Three photos"},
        {"__key__": "x/a", "JPG": PHOTO, "cls": " coffee\n", "json": "{}"},
    )
    (image,) = index_shard(shard).images
    assert (image.name, image.label) == (b"x/a.JPG", "coffee")
    assert shard.read_bytes()[image.offset : image.offset + image.size] == PHOTO


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"jpg": PHOTO}, r"a\.tar/k: has no label: add k\.cls"),
        ({"jpg": PHOTO, "png": PHOTO, "cls": "1"}, r"a\.tar/k: has 2 images \(cls, jpg, png\)"),
        ({"jpg": PHOTO, "cls": " "}, r"a\.tar/k\.cls: has no label"),
        ({"jpg": PHOTO, "cls": b"\xff"}, r"a\.tar/k\.cls: cannot be read as a label"),
        ({"jpg": PHOTO, "json": "{}"}, r"a\.tar/k\.json: has no label"),
        ({"jpg": PHOTO, "json": '{"label": true}'}, r"a\.tar/k\.json: has no label"),
        ({"jpg": PHOTO, "json": "{"}, r"a\.tar/k\.json: cannot be read as a label"),
        ({"txt": "a"}, r"a\.tar: contains no images"),
    ],
)
def test_a_wrong_sample_is_named(tmp_path: Path, sample: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        index_shard(write_shard(tmp_path / "a.tar", {"__key__": "k", **sample}))


@pytest.mark.parametrize("kept", [0, 700, 0.5, "gzip"])
def test_a_shard_that_is_truncated_or_no_archive_is_refused(tmp_path: Path, kept: float | str) -> None:
    shard = write_shard(tmp_path / "a.tar", *({"__key__": k, "jpg": PHOTO, "cls": "1"} for k in "abcd"))
    content = shard.read_bytes()
    if kept == "gzip":
        with tarfile.open(shard, "w:gz"):
            pass
    else:
        shard.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(ImageError, match=r"a\.tar: not an uncompressed tar archive, or truncated"):
        index_shard(shard)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_line_from_every_process(tmp_path: Path, workers: int) -> None:
    write_shard(
        tmp_path / "s" / "a.tar",
        *({"__key__": k, "jpg": v, "cls": k} for k, v in (("x", PHOTO), ("y", PHOTO[:900]))),
    )
    images = ShardFolder(tmp_path / "s", MODEL, PREPROCESSING)
    with pytest.raises(ImageError) as caught:
        list(DataLoader(images, num_workers=workers))
    assert str(caught.value).startswith(f"{tmp_path}/s/a.tar/y.jpg: cannot be decoded")
    assert "\n" not in str(caught.value)


def test_a_shard_that_was_truncated_later_is_refused(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s" / "a.tar", {"__key__": "x", "jpg": PHOTO, "cls": "x"})
    images = ShardFolder(tmp_path / "s", MODEL, PREPROCESSING)
    os.truncate(shard, 1000)
    with pytest.raises(ImageError, match=r"a\.tar/x\.jpg: truncated"):
        images[0]


def test_a_shard_that_was_replaced_is_opened_again(tmp_path: Path) -> None:
    train = write_shards(tmp_path) / "train"
    ShardFolder(train, MODEL, PREPROCESSING)[0]
    other = next(crops("chelsea", "val"))
    (train / "train-000.tar").unlink()
    write_shard(train / "train-000.tar", {"__key__": "x", "jpg": other, "cls": "chelsea"})
    write_shard(tmp_path / "s" / "a.tar", {"__key__": "x", "jpg": other, "cls": "chelsea"})
    expected = ShardFolder(tmp_path / "s", MODEL, PREPROCESSING)[0][0]
    assert torch.equal(ShardFolder(train, MODEL, PREPROCESSING)[0][0], expected)


def test_more_shards_than_open_files_are_read(tmp_path: Path) -> None:
    for number in range(150):
        write_shard(
            tmp_path / "s" / f"{number:03d}.tar", {"__key__": "x", "jpg": PHOTO, "cls": str(number % 2)}
        )
    images = ShardFolder(tmp_path / "s", MODEL, PREPROCESSING)
    before = open_files()
    assert np.array_equal([images[index][1] for index in range(150)], np.arange(150) % 2)
    assert open_files() - before <= 128
