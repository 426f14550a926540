"""Random changes of training images: a function of the image and a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchvision.transforms import v2

from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from PIL import Image

    from ccr_deploy.codec.contract import Preprocessing


class Augmentation(Record, frozen=True, kw_only=True):
    """How a training image is changed at random.

    The defaults are those of Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6, which is
    also the recipe of torchvision's ResNet-18. Pretraining restores images, so its colors must be natural:
    `color_jitter` is for finetuning alone. Stronger policies such as RandAugment are left out: they help
    large networks that overfit, and hurt networks as small as a ResNet-18 (Cubuk et al., "RandAugment",
    NeurIPS 2020, section 4.1: the best magnitude grows with the network).

    Attributes:
        crop_scale: smallest and largest share of the image's area that a crop covers, 0..1; its aspect ratio
            is between 3/4 and 4/3.
        mirror: whether to mirror it with probability 0.5; false for text, traffic signs and the like.
        color_jitter: largest relative change of brightness, contrast and saturation, 0..1; 0.4 in Gross and
            Wilber's recipe for ResNets (fb.resnet.torch).
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    mirror: bool = True
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        smallest, largest = self.crop_scale
        if not 0 < smallest <= largest <= 1:
            raise ValueError(f"crop_scale is [{smallest}, {largest}]: 0 < smallest <= largest <= 1 is needed")
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(f"color_jitter is {self.color_jitter}: a number from 0 to 1 is needed")


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
