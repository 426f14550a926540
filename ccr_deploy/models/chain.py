"""The two chains: compression-recognition (CCR) and the conventional baseline.

Shibata, Ohara, Yamauchi, "Lightweight and Acceleration of Image Compression, Restoration, and Recognition
Framework", Chubu University.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder
from ccr_deploy.models.resnet import TruncatedClassifier, WholeResNet18

if TYPE_CHECKING:
    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.models.config import ModelConfig
    from ccr_deploy.models.conv_lstm import State


class CcrChain(nn.Module):
    """Recognises an image from its code, without restoring the image.

    ::

        image [N, 3, H, W]
          encoder     T iterations on the image    [N, 32, H/16, W/16]   code in {-1, +1}
          classifier  truncated ResNet-18          [N, classes]          logits
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = RecurrentEncoder(config.encoder)
        self.classifier = TruncatedClassifier(config.classifier, config.encoder.code_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits ``[N, classes]`` of normalised images ``[N, 3, H, W]``."""
        return self.classifier(self.encoder(image, self.config.iterations))


class BaselineChain(nn.Module):
    """Compresses and restores an image in a residual loop, then recognises it with a whole ResNet-18.

    ::

        residual = image; restored = 0
        T times:  code     = encoder.step(residual)
                  part     = decoder.step(code)
                  restored = restored + part
                  residual = residual - part
        logits = classifier(restored)
    """

    def __init__(self, config: ModelConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        assert config.decoder is not None
        self.config = config
        self.encoder = RecurrentEncoder(config.encoder)
        self.decoder = Decoder(config.decoder, config.encoder.code_channels)
        self.classifier = WholeResNet18(config.classifier)
        # Not persistent: they belong to the contract, and checkpoints of other trainers lack them.
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1), persistent=False)

    mean: Tensor
    std: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits ``[N, classes]`` of normalised images ``[N, 3, H, W]``."""
        # Back to 0..1, since the classifier has its own normalisation.
        return self.classifier(self.restore(image) * self.std + self.mean)

    def restore(self, image: Tensor) -> Tensor:
        """Return the restored images ``[N, 3, H, W]``, in the encoder's normalisation."""
        # The sum of all decoded parts is the image minus the last residual.
        return image - residual_loop(self.encoder, self.decoder, image, self.config.iterations)[-1]


def build_network(stage: Stage, config: ModelConfig, preprocessing: Preprocessing) -> nn.Module:
    """Return the network that a stage's engine computes, with PyTorch's default initialisation.

    Args:
        stage: the stage.
        config: the configuration of its model.
        preprocessing: the normalisation of its images; a baseline undoes it before its classifier.
    """
    if stage == "encoder":
        return RecurrentEncoder(config.encoder)
    if stage == "classifier":
        return TruncatedClassifier(config.classifier, config.encoder.code_channels)
    return BaselineChain(config, preprocessing)


def residual_loop(
    encoder: RecurrentEncoder, decoder: Decoder, image: Tensor, iterations: int
) -> list[Tensor]:
    """Return the residual after each iteration.

    Additive reconstruction: every iteration encodes the residual of the previous one, and subtracts what it
    decodes (Toderici et al., CVPR 2017, section 3.2).

    Args:
        encoder: the encoder, whose states are kept between iterations.
        decoder: the decoder, whose states are kept between iterations.
        image: normalised images ``float32 [N, 3, H, W]``.
        iterations: the number of iterations T.

    Returns:
        T residuals, each ``float32 [N, 3, H, W]``.
    """
    encoder_states: list[State | None] = [None] * len(encoder.cells)
    decoder_states: list[State | None] = [None] * len(decoder.cells)
    residuals = [image]
    for _ in range(iterations):
        features, encoder_states = encoder.step(residuals[-1], encoder_states)
        part, decoder_states = decoder.step(encoder.binarizer(features), decoder_states)
        residuals.append(residuals[-1] - part)
    return residuals[1:]


def normalise(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalise images ``uint8 [N, H, W, 3]`` to the encoder's input ``float32 [N, 3, H, W]``."""
    # Cast before permute: TensorRT's parser rejects a Transpose on uint8.
    pixels = image.to(torch.float32).permute(0, 3, 1, 2)
    offset = torch.tensor([255 * mean for mean in preprocessing.mean], device=image.device)
    scale = torch.tensor([1 / (255 * std) for std in preprocessing.std], device=image.device)
    return (pixels - offset.view(3, 1, 1)) * scale.view(3, 1, 1)
