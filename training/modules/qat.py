"""Quantization-aware training: the recogniser's last epochs, with INT8 rounding in the forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from ccr_deploy.models.binarizer import sign
from ccr_deploy.models.chain import normalise
from training.modules.module import TrainingModule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.chain import CcrChain
    from training.modules.module import Batch
    from training.recipe import Phase


class QatModule(TrainingModule):
    """Fine-tunes a chain with fake quantization, by cross-entropy on the logits.

    The bits are those of production in every step, and the batch norms keep their statistics: what is trained
    is the chain that the INT8 graphs compute. The gradient of a bit is that of the tanh (straight-through
    estimator).

    Args:
        model: the chain with fake quantization.
        preprocessing: the normalisation of the images.
        phase: the hyperparameters.
        steps: steps of the optimizer in the whole training.
    """

    def __init__(self, model: CcrChain, preprocessing: Preprocessing, *, phase: Phase, steps: int) -> None:
        iterations = (model.config.iterations,)
        super().__init__(preprocessing, phase=phase, steps=steps, iterations=iterations)
        self.model = model
        self.validation_top1 = MulticlassAccuracy(model.config.classifier.classes, average="micro")

    def networks(self) -> Iterable[nn.Module]:
        """Return encoder and classifier."""
        return self.model.children()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[N, classes]`` of images ``uint8 [N, H, W, 3]``."""
        return self.model.classifier(self.codes(images))

    def codes(self, images: Tensor) -> Tensor:
        """Return the codes ``[N, code_channels, H/16, W/16]`` of images ``uint8 [N, H, W, 3]``."""
        pixels = normalise(images, self.preprocessing)
        value = torch.tanh(self.model.encoder.pre_binarization(pixels, self.model.config.iterations))
        return value + (sign(value) - value).detach()

    def train(self, mode: bool = True) -> QatModule:
        """Set the mode of this module, as PyTorch does, but keep the chain in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002  Lightning's signature
        """Return the cross-entropy of one batch."""
        images, labels = batch
        return cross_entropy(self(images), labels, label_smoothing=self.phase.label_smoothing)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002  Lightning's signature
        """Log the top-1 accuracy with fake quantization."""
        images, labels = batch
        self.validation_top1.update(self(images), labels)
        self.log("validation_top1", self.validation_top1)
