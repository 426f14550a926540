"""A data set of the user's images: ``folder/class/image.jpg``, as in torchvision's ImageFolder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ccr_deploy.data.images import list_images, load_image, open_rgb
from ccr_deploy.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import ModelConfig


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images ``uint8 [H, W, 3]`` of the model's image size, with their labels.

    For evaluation, an image is preprocessed by `ccr_deploy.data.images.load_image`, the same function as in
    production. For training, it is cropped with random position, scale and aspect ratio, as in Szegedy et
    al., "Going Deeper with Convolutions", CVPR 2015, and mirrored with probability 0.5. Images are not
    normalised here.

    Args:
        folder: images in one sub-folder for each class.
        config: the model's configuration, for the image size.
        preprocessing: the model's preprocessing.
        class_names: names of the classes 0, 1, …; if empty, the sorted names of the sub-folders.
        augment: whether to crop and mirror at random, for training.

    Raises:
        ImageError: if the folder is missing or empty, a sub-folder is not a class, or an image is in no
            sub-folder; on access, if an image cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        preprocessing: Preprocessing,
        class_names: Sequence[str] = (),
        *,
        augment: bool,
    ) -> None:
        items = list_images(folder, class_names)
        unlabelled = [item.path for item in items if item.label is None]
        if unlabelled:
            raise ImageError(f"{unlabelled[0]}: is in no class folder: move it to {folder}/CLASS/")
        folders = {item.path.relative_to(folder).parts[0] for item in items}
        self.class_names = tuple(class_names) or tuple(sorted(folders))
        self.paths = [item.path for item in items]
        self.labels = [item.label for item in items if item.label is not None]
        self.groups = [item.group for item in items]
        self.preprocessing = preprocessing
        self.size = config.image_height, config.image_width
        self._augmentation = _random_crop_and_flip(self.size, preprocessing) if augment else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.paths[index]
        if self._augmentation is None:
            pixels = load_image(path, self.preprocessing, *self.size)
        else:
            pixels = np.asarray(self._augmentation(open_rgb(path)))
        return torch.from_numpy(pixels.copy()), self.labels[index]


def _random_crop_and_flip(size: tuple[int, int], preprocessing: Preprocessing) -> v2.Transform:
    # The contract's filter: with another one, edges would look different in training and production.
    interpolation = v2.InterpolationMode(preprocessing.resize_filter)
    return v2.Compose([v2.RandomResizedCrop(size, interpolation=interpolation), v2.RandomHorizontalFlip()])
