"""Step 1 of the training: encoder and decoder learn to compress and restore images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning
import torch
from torch import Tensor

from ccr_deploy.models.chain import normalise, residual_loop
from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder
from training.optimisation import one_cycle_adamw

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import DecoderConfig, ModelConfig
    from training.recipe import Phase


class CompressorModule(lightning.LightningModule):
    """Trains encoder and decoder to restore images from codes.

    Toderici et al., "Variable Rate Image Compression with Recurrent Neural Networks", ICLR 2016: the
    binarizer is stochastic in training, and the loss is the mean absolute residual over all iterations.
    """

    def __init__(
        self, config: ModelConfig, decoder: DecoderConfig, preprocessing: Preprocessing, phase: Phase
    ) -> None:
        super().__init__()
        self.iterations = config.iterations
        self.preprocessing = preprocessing
        self.phase = phase
        self.encoder = RecurrentEncoder(config.encoder)
        self.decoder = Decoder(decoder, config.encoder.code_channels)

    def loss(self, images: Tensor) -> Tensor:
        """Return the mean absolute residual of images ``uint8 [N, H, W, 3]`` over pixels and iterations."""
        residuals = residual_loop(
            self.encoder, self.decoder, normalise(images, self.preprocessing), self.iterations
        )
        return torch.stack([residual.abs().mean() for residual in residuals]).mean()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of one batch; labels are ignored."""
        loss = self.loss(batch[0])
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Log the loss with the bits of evaluation, which are not drawn at random."""
        self.log("l1", self.loss(batch[0]), batch_size=len(batch[0]))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a one-cycle schedule."""
        return one_cycle_adamw(self.parameters(), self.phase)
