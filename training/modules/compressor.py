"""Pretraining: encoder and decoder learn to compress and restore images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ccr_deploy.models.chain import normalise, residual_loop
from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder
from training.modules.module import TrainingModule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import DecoderConfig, EncoderConfig
    from training.modules.module import Batch
    from training.recipe import Phase


class CompressorModule(TrainingModule):
    """Trains encoder and decoder to restore images from codes.

    Toderici et al., "Variable Rate Image Compression with Recurrent Neural Networks", ICLR 2016: the
    binarizer is stochastic in training, and the loss is the mean absolute residual over all iterations.

    Args:
        encoder: the configuration of the encoder.
        decoder: the configuration of the decoder.
        preprocessing: the normalisation of the images.
        phase: the hyperparameters.
        steps: steps of the optimizer in the whole training.
        iterations: every T that is trained.
    """

    def __init__(
        self,
        encoder: EncoderConfig,
        decoder: DecoderConfig,
        preprocessing: Preprocessing,
        *,
        phase: Phase,
        steps: int,
        iterations: Sequence[int],
    ) -> None:
        super().__init__(preprocessing, phase=phase, steps=steps, iterations=iterations)
        self.encoder = RecurrentEncoder(encoder)
        self.decoder = Decoder(decoder, encoder.code_channels)

    def loss(self, images: Tensor, iterations: int) -> Tensor:
        """Return the mean absolute residual of images ``uint8 [N, H, W, 3]`` over pixels and iterations."""
        residuals = residual_loop(
            self.encoder, self.decoder, normalise(images, self.preprocessing), iterations
        )
        return torch.stack([residual.abs().mean() for residual in residuals]).mean()

    def networks(self) -> Iterable[nn.Module]:
        """Return the cells and convolutions of encoder and decoder: their loop is Python."""
        return [*self.encoder.cells, self.encoder.stem, *self.decoder.cells, self.decoder.output]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002  Lightning's signature
        """Return the loss of one batch; labels are ignored."""
        return self.loss(batch[0], self.draw_iterations())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002  Lightning's signature
        """Log the loss with the bits of evaluation, which are not drawn at random."""
        loss = self.loss(batch[0], max(self.trained_iterations))
        self.log("validation_l1", loss, batch_size=len(batch[0]), sync_dist=True)
