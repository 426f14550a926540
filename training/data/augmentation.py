"""Random changes of training images: a function of the image and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torchvision.transforms import v2

if TYPE_CHECKING:
    from PIL import Image

    from ccr_deploy.codec.contract import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How a training image is changed at random.

    The defaults are those of Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6, and of
    torchvision's ResNet-18. Pretraining restores images, so its colors must be natural: `color_jitter` is for
    finetuning alone. Stronger policies such as RandAugment are left out: their best strength grows with the
    network (Cubuk et al., "RandAugment", 2020, section 4.1), and these networks are small.

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
