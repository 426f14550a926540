"""Quantization-aware training: the recogniser's last epochs, with INT8 rounding in the forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning
import torch
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from ccr_deploy.models.binarizer import sign
from ccr_deploy.models.chain import normalise
from training.optimisation import one_cycle_adamw

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from torch import Tensor

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.chain import CcrChain
    from training.recipe import Phase


class QatModule(lightning.LightningModule):
    """Fine-tunes a chain with fake quantization, by cross-entropy on the logits.

    The bits are those of production in every step, and the batch norms keep their statistics: what is trained
    is the chain that the INT8 graphs compute. The gradient of a bit is that of the tanh (straight-through
    estimator).
    """

    def __init__(self, model: CcrChain, preprocessing: Preprocessing, phase: Phase) -> None:
        super().__init__()
        self.model = model
        self.preprocessing = preprocessing
        self.phase = phase
        classes = model.config.classifier.classes
        self.top1 = MulticlassAccuracy(classes, average="micro")

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

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy of one batch."""
        images, labels = batch
        loss = cross_entropy(self(images), labels, label_smoothing=self.phase.label_smoothing)
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Update the top-1 accuracy with one batch."""
        images, labels = batch
        self.top1.update(self(images), labels)
        self.log("top1", self.top1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a one-cycle schedule."""
        return one_cycle_adamw(self.parameters(), self.phase)
