"""Step 1: encoder and decoder as a residual compressor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning
import torch
from torch import Tensor

from ccr_deploy.models.chain import normalise, residual_loop
from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder
from training.optimisation import configure

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import DecoderConfig, ModelConfig
    from training.recipe import Phase


class CompressorModule(lightning.LightningModule):
    """Learns to restore images from codes: L1 on the residuals over the iterations.

    Toderici et al., "Variable Rate Image Compression with Recurrent Neural Networks", ICLR 2016: the
    binarizer is stochastic in training, and the loss is the mean over all iterations' residuals.
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
        """Mean absolute residual of images ``uint8 [N, H, W, 3]``, over pixels and iterations."""
        residuals = residual_loop(
            self.encoder, self.decoder, normalise(images, self.preprocessing), self.iterations
        )
        return torch.stack([residual.abs().mean() for residual in residuals]).mean()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """One step's loss; the labels are not needed."""
        loss = self.loss(batch[0])
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Logs the loss with the codes of production, whose bits are not drawn at random."""
        self.log("l1", self.loss(batch[0]), batch_size=len(batch[0]))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with one cycle."""
        return configure(self.parameters(), self.phase)
