"""Images with labels, whatever they are stored in: decoding, augmentation, and errors on access."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ccr_deploy.data.images import decode_rgb, fit_image
from ccr_deploy.errors import ImageError
from training.data.augmentation import Augmenter
from training.data.batches import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from PIL import Image

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import ModelConfig
    from training.data.augmentation import Augmentation


class UnusableImageError(ImageError):
    """An image that cannot be used; its message stays one line if a `DataLoader` worker raises it.

    A `DataLoader` raises a worker's exception in the main process as ``type(error)(traceback)``. The
    traceback ends with the class and the message, of which this class keeps the message.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{type(self).__qualname__}: ")[2].strip())


class LabelledImages(Dataset[tuple[Tensor, int]], ABC):
    """Images ``uint8 [H, W, 3]`` of the model's image size, with their labels; not normalised.

    A key that is a `Sample` gives the image with the random changes of the sample's seed, for training. An
    integer gives it as `ccr_deploy.data.images.load_image` does in production, for evaluation.

    Names and labels are NumPy arrays and not lists: the reference counts of list elements are written on
    access, and each loader worker would soon hold a copy of the whole list.

    Attributes:
        folder: the data set's folder.
        class_names: the names of the labels 0, 1, ….
        labels: ``int64 [N]``.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[bytes],
        labels: npt.NDArray[np.int64],
        class_names: Sequence[str],
        *,
        config: ModelConfig,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
    ) -> None:
        """Keep what all kinds of storage have in common.

        Args:
            folder: the data set's folder.
            names: the name of each image relative to the folder, as the file system encodes it.
            labels: the label of each image, ``int64 [N]``.
            class_names: the names of the labels 0, 1, ….
            config: the model's configuration, for the image size.
            preprocessing: the model's preprocessing.
            augmentation: the random changes in training; None if the images are for evaluation alone.
        """
        self.folder = folder
        self.class_names = tuple(class_names)
        self.labels = labels
        self._names = np.array(names, dtype=np.bytes_)
        self._size = config.image_height, config.image_width
        self._preprocessing = preprocessing
        self._augment = augmentation and Augmenter(augmentation, preprocessing, *self._size)

    @abstractmethod
    def open(self, index: int) -> BinaryIO:
        """Open the content of an image's file.

        Raises:
            ImageError: if it cannot be read.
        """

    @property
    @abstractmethod
    def groups(self) -> tuple[str, ...]:
        """The group of each image, as in `ccr_deploy.data.images.ImageItem`."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | Sample) -> tuple[Tensor, int]:
        """Return an image and its label.

        Raises:
            UnusableImageError: if the image cannot be used.
        """
        index = key.index if isinstance(key, Sample) else key
        try:
            pixels = self.load(key)
        except ImageError as error:
            raise UnusableImageError(
                f"{error}: find all such images with --check, and replace them: a training whose images were "
                "removed cannot continue"
            ) from None
        return torch.from_numpy(pixels.copy()), int(self.labels[index])

    def load(self, key: int | Sample) -> npt.NDArray[np.uint8]:
        """Return the pixels of an image, ``uint8 [H, W, 3]``.

        Raises:
            ImageError: if the image cannot be used.
        """
        if not isinstance(key, Sample):
            return fit_image(self._decode(key), self._preprocessing, *self._size, self.path(key))
        assert self._augment, "the data set is for evaluation alone"
        return np.asarray(self._augment(self._decode(key.index), key.seed))

    def path(self, index: int) -> Path:
        """Return the path of an image; of an image in a shard, the shard's path and the member's name."""
        return self.folder / os.fsdecode(self._names[index])

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of class names, image names and labels: equal keys then mean equal images."""
        digest = hashlib.sha256("\n".join(self.class_names).encode("utf-8", "surrogateescape"))
        digest.update(self._names.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """The number of images of each class, ``int64 [classes]``."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def _decode(self, index: int) -> Image.Image:
        with self.open(index) as file:
            return decode_rgb(file, self.path(index))
