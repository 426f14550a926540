"""Users' own images: ``folder/class/image.jpg``, as torchvision's ImageFolder lays them out."""

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
    """Images as images ``uint8 [H, W, 3]`` of the model's size, with their labels.

    For evaluation (`augment` false) an image is prepared by `ccr_deploy.data.images.load_image`, the very
    function that prepares it in production. For training it is cropped at a random place, scale and
    aspect, as in Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, and mirrored half of the
    times. Normalisation is the model's part in both.

    Without `class_names` the sorted sub-folders are the classes 0, 1, …. `groups` names, for every
    image, those that resemble each other (see `ccr_deploy.data.images.ImageItem`).

    Raises:
        ImageError: the folder is missing or empty, a sub-folder names no class, or an image lies in
            no class's folder; on access, an image that cannot be used.
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
            raise ImageError(f"{unlabelled[0]}: lies in no class's folder: move it to {folder}/CLASS/")
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
    # The contract's filter: another one would show the network other edges than it meets in production.
    interpolation = v2.InterpolationMode(preprocessing.resize_filter)
    return v2.Compose([v2.RandomResizedCrop(size, interpolation=interpolation), v2.RandomHorizontalFlip()])
