"""Step 2: without the decoder, encoder and truncated classifier end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning
import torch
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from ccr_deploy.core.records import to_builtins
from ccr_deploy.models.chain import CcrChain, normalise
from training.optimisation import configure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from torch import Tensor

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import ModelConfig
    from training.recipe import Phase


class RecogniserModule(lightning.LightningModule):
    """Learns to name what is in the image from its code, by cross-entropy on the logits.

    Shibata, Ohara, Yamauchi, "Lightweight and Acceleration of Image Compression, Restoration, and
    Recognition Framework". The binarizer stays stochastic while the encoder learns. Its codes then differ
    from production's enough to mislead the classifier's batch norms, so the last steps go without.

    A Lightning checkpoint of this module carries its configuration and T in its hyperparameters, and
    `ccr_deploy.models.checkpoint.load_checkpoint` reads it as it is.
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
        """The logits ``[N, classes]`` of images ``uint8 [N, H, W, 3]``."""
        return self.model(normalise(images, self.preprocessing))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """One step's cross-entropy."""
        images, labels = batch
        learning = self.global_step < self.phase.steps * (1 - self.phase.settling)
        self.model.encoder.train(learning)
        with torch.set_grad_enabled(learning):
            code = self.model.encoder(normalise(images, self.preprocessing), self.model.config.iterations)
        logits = self.model.classifier(code)
        loss = cross_entropy(logits, labels, label_smoothing=self.phase.label_smoothing)
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Counts top-1 and top-5 hits."""
        images, labels = batch
        logits = self(images)
        self.top1.update(logits, labels)
        self.top5.update(logits, labels)
        self.log("top1", self.top1)
        self.log("top5", self.top5)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with one cycle."""
        return configure(self.parameters(), self.phase)
