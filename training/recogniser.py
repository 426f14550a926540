"""Step 2 of the training: encoder and truncated classifier end to end, without the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning
import torch
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from ccr_deploy.core.records import to_builtins
from ccr_deploy.models.chain import CcrChain, normalise
from training.optimisation import one_cycle_adamw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from torch import Tensor

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import ModelConfig
    from training.recipe import Phase


class RecogniserModule(lightning.LightningModule):
    """Trains encoder and classifier to recognise an image from its code, by cross-entropy on the logits.

    Shibata, Ohara, Yamauchi, "Lightweight and Acceleration of Image Compression, Restoration, and Recognition
    Framework". The binarizer is stochastic while the encoder learns. These codes differ from production's
    enough to distort the statistics of the classifier's batch norms, so the encoder is frozen in the last
    steps, with the codes of production.

    A Lightning checkpoint of this module contains its configuration and T in its hyperparameters, so that
    `ccr_deploy.models.checkpoint.load_checkpoint` loads it without further arguments.
    """

    def __init__(
        self,
        config: ModelConfig,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        phase: Phase,
        encoder_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        description = {
            "config": to_builtins(config),
            "trained_iterations": [config.iterations],
            "preprocessing": to_builtins(preprocessing),
            "class_names": list(class_names),
            "metrics": {},
        }
        self.save_hyperparameters({"checkpoint": description})
        self.preprocessing = preprocessing
        self.phase = phase
        self.model = CcrChain(config)
        if encoder_weights is not None:
            self.model.encoder.load_state_dict(dict(encoder_weights))
        classes = config.classifier.classes
        self.top1 = MulticlassAccuracy(classes, average="micro")
        self.top5 = MulticlassAccuracy(classes, average="micro", top_k=min(5, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[N, classes]`` of images ``uint8 [N, H, W, 3]``."""
        return self.model(normalise(images, self.preprocessing))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy of one batch."""
        images, labels = batch
        encoder_learns = self.global_step < self.phase.steps * (1 - self.phase.frozen_share)
        self.model.encoder.train(encoder_learns)  # evaluation mode makes the binarizer deterministic
        with torch.set_grad_enabled(encoder_learns):
            code = self.model.encoder(normalise(images, self.preprocessing), self.model.config.iterations)
        logits = self.model.classifier(code)
        loss = cross_entropy(logits, labels, label_smoothing=self.phase.label_smoothing)
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Update top-1 and top-5 accuracy with one batch."""
        images, labels = batch
        logits = self(images)
        self.top1.update(logits, labels)
        self.top5.update(logits, labels)
        self.log("top1", self.top1)
        self.log("top5", self.top5)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a one-cycle schedule."""
        return one_cycle_adamw(self.parameters(), self.phase)
