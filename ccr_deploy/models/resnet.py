"""ResNet-18, whole or truncated, with torchvision's blocks and parameter names.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; cut as in Shibata, Ohara, Yamauchi,
"Lightweight and Acceleration of Image Compression, Restoration, and Recognition Framework".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu
from torchvision.models.resnet import BasicBlock

from ccr_deploy.models.config import CUT_STAGE, ClassifierConfig, Cut

SAMPLING_UPSAMPLINGS: dict[Cut, int] = {"layer1": 2, "layer2": 1, "layer3": 0}
"""Number of upsamplings by 2 from 1/16 to the 1/4, 1/8 or 1/16 that the next residual stage expects."""


def residual_stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Return one residual stage of a ResNet-18: two of torchvision's basic blocks.

    Args:
        in_channels: channels of its input.
        channels: channels of its output.
        stride: stride of its first convolution.
    """
    downsample = None
    if stride != 1 or in_channels != channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
        )
    return nn.Sequential(
        BasicBlock(in_channels, channels, stride, downsample), BasicBlock(channels, channels)
    )


class SamplingLayers(nn.Module):
    """Convert a code to the input of a residual stage.

    ::

        code [N, code_channels, H/16, W/16]
          up x2       nearest neighbour, if `upsamplings` >= 1
          conv1       conv 3x3, batch norm, ReLU   [N, channels, …]
          up x2       nearest neighbour, if `upsamplings` == 2
          conv2       conv 3x3, batch norm, ReLU   "
          conv3       conv 3x3, batch norm, ReLU   [N, channels, H/4, W/4], H/8 or H/16
    """

    def __init__(self, code_channels: int, channels: int, upsamplings: int) -> None:
        super().__init__()
        self.upsamplings = upsamplings
        for number, width in enumerate((code_channels, channels, channels), start=1):
            self.add_module(f"conv{number}", nn.Conv2d(width, channels, 3, padding=1, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return the residual stage's input ``[N, channels, …]``."""
        for number in (1, 2, 3):
            if number <= self.upsamplings:
                features = interpolate(features, scale_factor=2.0, mode="nearest")
            convolved = self.get_submodule(f"conv{number}")(features)
            features = relu(self.get_submodule(f"bn{number}")(convolved))
        return features


class TruncatedClassifier(nn.Module):
    """Recognises an image from its code: sampling layers, then a ResNet-18 without its first stages.

    ::

        code [N, 32, H/16, W/16], in {-1, +1}
          sampling    SamplingLayers               [N, 64, H/4, W/4]     for the cut layer1
          layer2      two basic blocks, stride 2   [N, 128, H/8, W/8]    "
          layer3      two basic blocks, stride 2   [N, 256, H/16, W/16]  for the cuts layer1 and layer2
          layer4      two basic blocks, stride 2   [N, 512, H/32, W/32]  for all cuts
          fc          average pooling, linear      [N, classes]          logits

    For the cuts ``layer2`` and ``layer3`` the sampling layers give 128 channels at H/8 or 256 channels at
    H/16.
    """

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
        """Return the logits ``[N, classes]`` of codes in {-1, +1}."""
        features = self.sampling(code)
        for name in self.stage_names:
            features = self.get_submodule(name)(features)
        return self.fc(torch.flatten(self.avgpool(features), 1))


class WholeResNet18(nn.Module):
    """The baseline's classifier: torchvision's ResNet-18, with the widths of `stage_channels`.

    ::

        image [N, 3, H, W], in 0..1
          normalise   ImageNet's mean and std, as torchvision's weights expect
          conv1       conv 7x7, stride 2           [N, 64, H/2, W/2]
          maxpool     3x3, stride 2                [N, 64, H/4, W/4]
          layer1      two basic blocks             [N, 64, H/4, W/4]
          layer2      two basic blocks, stride 2   [N, 128, H/8, W/8]
          layer3      two basic blocks, stride 2   [N, 256, H/16, W/16]
          layer4      two basic blocks, stride 2   [N, 512, H/32, W/32]
          fc          average pooling, linear      [N, classes]          logits
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        channels = config.stage_channels
        # Not persistent: torchvision's state dicts have no such buffers.
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
        """Return the logits ``[N, classes]`` of images ``[N, 3, H, W]`` in 0..1."""
        features = (image - self.mean) / self.std
        features = self.maxpool(self.relu(self.bn1(self.conv1(features))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        # Not AdaptiveAvgPool2d: torch's exporter makes it a Gather with indices computed from the batch size.
        return self.fc(features.mean(dim=(2, 3)))
