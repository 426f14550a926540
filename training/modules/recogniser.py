"""Fine-tuning: encoder and truncated classifier end to end, without the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from ccr_deploy.core.records import to_builtins
from ccr_deploy.models.chain import CcrChain, normalise
from training.modules.module import TrainingModule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.chain import BaselineChain
    from ccr_deploy.models.config import ModelConfig
    from training.modules.module import Batch
    from training.recipe import Phase


class RecogniserModule(TrainingModule):
    """Trains encoder and classifier to recognise an image from its code, by cross-entropy on the logits.

    Shibata, Ohara, Yamauchi, "Lightweight and Acceleration of Image Compression, Restoration, and Recognition
    Framework". The binarizer is stochastic while the encoder learns. These codes differ from production's
    enough to distort the statistics of the classifier's batch norms, so the encoder is frozen in the last
    steps, with the codes of production.

    A Lightning checkpoint of this module contains its configuration and T in its hyperparameters, so that
    `ccr_deploy.models.checkpoint.load_checkpoint` loads it without further arguments.

    Args:
        config: the configuration of the chain.
        class_names: names of the labels 0, 1, ….
        preprocessing: the normalisation of the images.
        phase: the hyperparameters.
        steps: steps of the optimizer in the whole training.
        iterations: every T that is trained.
    """

    def __init__(
        self,
        config: ModelConfig,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        *,
        phase: Phase,
        steps: int,
        iterations: Sequence[int],
    ) -> None:
        super().__init__(preprocessing, phase=phase, steps=steps, iterations=iterations)
        description = {
            "config": to_builtins(config),
            "trained_iterations": list(iterations),
            "preprocessing": to_builtins(preprocessing),
            "class_names": list(class_names),
            "metrics": {},
        }
        self.save_hyperparameters({"checkpoint": description}, logger=False)
        self.model = self.build_chain(config)
        self.validation_top1 = MulticlassAccuracy(config.classifier.classes, average="micro")

    def build_chain(self, config: ModelConfig) -> CcrChain | BaselineChain:
        """Return the network, with PyTorch's default initialisation."""
        return CcrChain(config)

    def frozen_modules(self) -> Iterable[nn.Module]:
        """Return the modules in front of the classifier, which are frozen in the last steps."""
        return [self.model.encoder]

    def classifier_input(self, images: Tensor, iterations: int) -> Tensor:
        """Return what the classifier reads: the codes of normalised images after T iterations."""
        return self.model.encoder(images, iterations)

    def networks(self) -> Iterable[nn.Module]:
        """Return encoder and classifier, and the decoder of a baseline."""
        return self.model.children()

    @property
    def first_frozen_step(self) -> int:
        """The first step in which the encoder is frozen."""
        return round(self.steps * (1 - self.phase.frozen_share))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[N, classes]`` of images ``uint8 [N, H, W, 3]``."""
        return self.model(normalise(images, self.preprocessing))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002  Lightning's signature
        """Return the cross-entropy of one batch."""
        images, labels = batch
        iterations = self.draw_iterations()
        encoder_learns = self.global_step < self.first_frozen_step
        for module in self.frozen_modules():
            module.train(encoder_learns)  # evaluation mode makes the binarizer deterministic
        with torch.set_grad_enabled(encoder_learns):
            read = self.classifier_input(normalise(images, self.preprocessing), iterations)
        logits = self.model.classifier(read)
        return cross_entropy(logits, labels, label_smoothing=self.phase.label_smoothing)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002  Lightning's signature
        """Log the top-1 accuracy at the T of the configuration."""
        images, labels = batch
        self.validation_top1.update(self(images), labels)
        self.log("validation_top1", self.validation_top1)
