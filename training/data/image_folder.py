"""A data set of the user's images: ``folder/class/image.jpg``, as in torchvision's ImageFolder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ccr_deploy.core.untrusted import open_regular, reading
from ccr_deploy.data.images import list_images
from ccr_deploy.errors import ImageError
from training.data.labelled_images import LabelledImages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import ModelConfig
    from training.data.augmentation import Augmentation


class ImageFolder(LabelledImages):
    """Images in one sub-folder for each class, in the order of their paths.

    Images one level deeper (``class/region/image.png``) form one group.
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
        """List the images.

        Args:
            folder: images in one sub-folder for each class.
            config: the model's configuration, for the image size.
            preprocessing: the model's preprocessing.
            class_names: names of the classes 0, 1, …; if empty, the sorted names of the sub-folders.
            ignore_others: whether to skip sub-folders that are not in `class_names` instead of refusing them.
            augmentation: the random changes in training; None if the images are for evaluation alone.

        Raises:
            ImageError: if the folder is missing or empty, a sub-folder is not a class, or an image is in no
                sub-folder.
        """
        items = list_images(folder, class_names, ignore_others=ignore_others)
        if unlabelled := [item.path for item in items if item.label is None]:
            raise ImageError(f"{unlabelled[0]}: is in no class folder: move it to {folder}/CLASS/")
        relative = [item.path.relative_to(folder) for item in items]
        super().__init__(
            folder,
            [os.fsencode(path) for path in relative],
            np.array([item.label for item in items], dtype=np.int64),
            tuple(class_names) or sorted({path.parts[0] for path in relative}),
            config=config,
            preprocessing=preprocessing,
            augmentation=augmentation,
        )

    def open(self, index: int) -> BinaryIO:
        """Open an image file.

        Raises:
            ImageError: if it cannot be read.
        """
        path = self.path(index)
        with reading(path, ImageError):
            return open_regular(path)

    @property
    def groups(self) -> tuple[str, ...]:
        """The folder of each image, or its path if it is directly in a class folder."""
        paths = [Path(os.fsdecode(name)) for name in self._names]
        return tuple(str(path.parent if len(path.parts) > 2 else path) for path in paths)
