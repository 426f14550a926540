"""ResNet-18, whole or truncated, with torchvision's blocks and parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu
from torchvision.models.resnet import BasicBlock

from ccr_deploy.models.config import CUT_STAGE, ClassifierConfig, Cut

SAMPLING_UPSAMPLINGS: dict[Cut, int] = {"layer1": 2, "layer2": 1, "layer3": 0}
"""How often 1/16 is doubled to reach the 1/4, 1/8 or 1/16 that the next residual stage expects."""


def residual_stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Two of torchvision's basic blocks, as in every stage of a ResNet-18."""
    downsample = None
    if stride != 1 or in_channels != channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
        )
    return nn.Sequential(
        BasicBlock(in_channels, channels, stride, downsample), BasicBlock(channels, channels)
    )


class SamplingLayers(nn.Module):
    """Three 3x3 convolutions with batch norm and ReLU that bring a code to a residual stage's input.

    ``[N, code_channels, H/16, W/16]`` becomes ``[N, channels, …]`` at 1/4, 1/8 or 1/16; the
    nearest-neighbour upsamplings stand in front of the first convolutions.
    """

    def __init__(self, code_channels: int, channels: int, upsamplings: int) -> None:
        super().__init__()
        self.upsamplings = upsamplings
        for number, width in enumerate((code_channels, channels, channels), start=1):
            self.add_module(f"conv{number}", nn.Conv2d(width, channels, 3, padding=1, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        """The residual stage's input."""
        for number in (1, 2, 3):
            if number <= self.upsamplings:
                features = interpolate(features, scale_factor=2.0, mode="nearest")
            convolved = self.get_submodule(f"conv{number}")(features)
            features = relu(self.get_submodule(f"bn{number}")(convolved))
        return features


class TruncatedClassifier(nn.Module):
    """Code ``[N, C, H/16, W/16]`` to logits ``[N, classes]``: sampling layers, then the cut ResNet-18."""

    def __init__(self, config: ClassifierConfig, code_channels: int) -> None:
        super().__init__()
        assert config.cut is not None
        removed = CUT_STAGE[config.cut]
        channels = config.stage_channels
        self.sampling = SamplingLayers(code_channels, channels[removed - 1], SAMPLING_UPSAMPLINGS[config.cut])
        self.stage_names = [f"layer{number}" for number in range(removed + 1, 5)]
        for number in range(removed + 1, 5):
            stage = residual_stage(channels[number - 2], channels[number - 1], stride=2)
            self.add_module(f"layer{number}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[-1], config.classes)

    def forward(self, code: Tensor) -> Tensor:
        """The logits of codes in {-1, +1}."""
        features = self.sampling(code)
        for name in self.stage_names:
            features = self.get_submodule(name)(features)
        return self.fc(torch.flatten(self.avgpool(features), 1))


class WholeResNet18(nn.Module):
    """The baseline's recogniser: torchvision's ResNet-18; `stage_channels` may be narrower.

    It takes images in 0..1 ``[N, 3, H, W]`` and normalises them by ImageNet's mean and standard
    deviation, as torchvision's own weights expect.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        channels = config.stage_channels
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(3, channels[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = residual_stage(channels[0], channels[0], stride=1)
        self.layer2 = residual_stage(channels[0], channels[1], stride=2)
        self.layer3 = residual_stage(channels[1], channels[2], stride=2)
        self.layer4 = residual_stage(channels[2], channels[3], stride=2)
        self.fc = nn.Linear(channels[3], config.classes)

    def forward(self, image: Tensor) -> Tensor:
        """The logits ``[N, classes]`` of images in 0..1."""
        features = (image - self.mean) / self.std
        features = self.maxpool(self.relu(self.bn1(self.conv1(features))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        # Not AdaptiveAvgPool2d, of which torch's exporter makes a gather by indices from the batch's size.
        return self.fc(features.mean(dim=(2, 3)))
