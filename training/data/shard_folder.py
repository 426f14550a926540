"""A data set in shards: tar archives with an image and a label for each sample, as `webdataset` writes."""

from __future__ import annotations

import io
import os
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ccr_deploy.core.untrusted import open_regular, reading
from ccr_deploy.errors import ImageError
from training.data.class_list import read_class_list, short_list
from training.data.labelled_images import LabelledImages
from training.data.shard_index import index_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import ModelConfig
    from training.data.augmentation import Augmentation

CLASSES_FILE = "classes.txt"
"""Names of the classes 0, 1, …, one per line, beside the folders of shards whose labels are numbers."""


class ShardFolder(LabelledImages):
    """Images in the shards (``*.tar``) of a folder, in the order of the shards' names and of their members.

    A sample is ``key.jpg`` with ``key.cls``, ``key.txt`` or ``key.json`` (the field ``label``). A label is
    the name of a class or a number. Numbers stand for the lines of ``classes.txt`` in the parent folder, from
    0; without this file, they are the names.
    """

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        preprocessing: Preprocessing,
        class_names: Sequence[str] = (),
        *,
        ignore_others: bool = False,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Index the shards.

        Args:
            folder: the folder of shards.
            config: the model's configuration, for the image size.
            preprocessing: the model's preprocessing.
            class_names: names of the classes 0, 1, …; if empty, the sorted names of those in the shards.
            ignore_others: whether to skip images of other classes instead of refusing them.
            augmentation: the random changes in training; None if the images are for evaluation alone.

        Raises:
            ImageError: if a shard is damaged, or an image has no label or is of no class.
        """
        _opened.cache_clear()  # a shard may have been replaced since it was opened
        shards = index_folder(folder)
        images = [image for shard in shards for image in shard.images]
        texts, inverse = np.unique([image.label for image in images], return_inverse=True)
        names_file = folder.parent / CLASSES_FILE
        names = _class_names([str(text) for text in texts], names_file)
        if _all_numbers(names) and not _all_numbers(class_names):
            raise ImageError(
                f"{folder}: the labels in its shards are numbers, and the classes have names: write the "
                f"names, one per line in the order of the numbers, to {names_file}"
            )
        class_names = tuple(class_names) or _in_order(set(names))
        numbers = {name: number for number, name in enumerate(class_names)}
        others = sorted(set(names) - numbers.keys())
        if others and not ignore_others:
            raise ImageError(
                f"{folder}: {len(others)} of {len(set(names))} classes in the shards are not classes of the "
                f"model: {short_list(others)} (the model's classes are {short_list(list(class_names))})"
            )
        labels = np.array([numbers.get(name, -1) for name in names], dtype=np.int64)[inverse]
        kept = np.flatnonzero(labels >= 0)
        self._shards = np.array([os.fsencode(shard.shard) for shard in shards], dtype=np.bytes_)
        self._shard = np.repeat(np.arange(len(shards)), [len(shard.images) for shard in shards])[kept]
        self._offsets = np.array([image.offset for image in images], dtype=np.int64)[kept]
        self._sizes = np.array([image.size for image in images], dtype=np.int64)[kept]
        super().__init__(
            folder,
            [
                self._shards[shard] + b"/" + images[index].name
                for shard, index in zip(self._shard, kept, strict=True)
            ],
            labels[kept],
            class_names,
            config=config,
            preprocessing=preprocessing,
            augmentation=augmentation,
        )

    def open(self, index: int) -> BinaryIO:
        """Read an image's content from its shard.

        Raises:
            ImageError: if it cannot be read.
        """
        shard = self.folder / os.fsdecode(self._shards[self._shard[index]])
        size = int(self._sizes[index])
        with reading(shard, ImageError):
            # Processes that are forked share the file's position, and pread does not use it.
            content = os.pread(_opened(shard).fileno(), size, int(self._offsets[index]))
        if len(content) < size:
            raise ImageError(f"{self.path(index)}: truncated, the shard has changed: start again")
        return io.BytesIO(content)

    @property
    def groups(self) -> tuple[str, ...]:
        """The name of each image: shards hold no groups."""
        return tuple(os.fsdecode(name) for name in self._names)


# Cached: on a network's file system, opening a file takes a round trip. The usual limit is 1,024 open files.
@lru_cache(maxsize=128)
def _opened(shard: Path) -> BinaryIO:
    return open_regular(shard)


def _class_names(texts: list[str], names_file: Path) -> list[str]:
    """Return the names of the classes that labels stand for.

    Raises:
        ImageError: if a number is over the number of names in the file.
    """
    if not _all_numbers(texts) or not names_file.exists():
        return texts
    names = read_class_list(names_file)
    if int(max(texts, key=int)) >= len(names):
        raise ImageError(
            f"{names_file}: has {len(names)} classes, but the shards have the label "
            f"{max(texts, key=int)}: add the names of all classes"
        )
    return [names[int(text)] for text in texts]


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Return names sorted, and numbers by their value, so that the labels 0..N-1 are kept."""
    return tuple(sorted(names, key=int) if _all_numbers(names) else sorted(names))


def _all_numbers(texts: Iterable[str]) -> bool:
    return all(text.isascii() and text.isdecimal() for text in texts)
