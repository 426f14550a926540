"""Random changes of training images: a function of the image and a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchvision.transforms import v2

if TYPE_CHECKING:
    from PIL import Image

    from ccr_deploy.codec.contract import Preprocessing
    from training.data.augmentation import Augmentation


class Augmenter:
    """Applies an augmentation to images."""

    def __init__(
        self, augmentation: Augmentation, preprocessing: Preprocessing, height: int, width: int
    ) -> None:
        """Prepare the transforms.

        Args:
            augmentation: what to change.
            preprocessing: the model's preprocessing, for its resize filter.
            height: rows of the result, in pixels.
            width: columns of the result, in pixels.
        """
        # The contract's filter: with another one, edges would look different in training and production.
        filter_ = v2.InterpolationMode(preprocessing.resize_filter)
        steps: list[v2.Transform] = [
            v2.RandomResizedCrop((height, width), scale=augmentation.crop_scale, interpolation=filter_)
        ]
        if augmentation.mirror:
            steps.append(v2.RandomHorizontalFlip())
        if strength := augmentation.color_jitter:
            steps.append(v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength))
        self._transform = v2.Compose(steps)

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        """Return the changed image; equal seeds give equal results in any process.

        Args:
            image: the image, in mode RGB.
            seed: the only source of randomness.
        """
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: it would seed the GPUs' generators too, and they are not restored.
            torch.default_generator.manual_seed(seed)
            return self._transform(image)
