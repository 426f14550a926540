"""How training images are changed at random. Does not import torch."""

from __future__ import annotations

from ccr_deploy.core.records import Record


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
