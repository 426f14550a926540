"""The conventional chain: compress, restore and recognise the restored image, trained end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.models.chain import BaselineChain
from training.modules.recogniser import RecogniserModule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from ccr_deploy.models.config import ModelConfig


class BaselineModule(RecogniserModule):
    """Trains encoder, decoder and a whole ResNet-18 to recognise the restored image.

    The comparison of the paper: Shibata, Ohara, Yamauchi, "Lightweight and Acceleration of Image Compression,
    Restoration, and Recognition Framework". The decoder is frozen together with the encoder in the last
    steps.
    """

    model: BaselineChain

    def build_chain(self, config: ModelConfig) -> BaselineChain:
        """Return the conventional chain, with PyTorch's default initialisation."""
        return BaselineChain(config, self.preprocessing)

    def frozen_modules(self) -> Iterable[nn.Module]:
        """Return encoder and decoder."""
        return [self.model.encoder, self.model.decoder]

    def classifier_input(self, images: Tensor, iterations: int) -> Tensor:  # noqa: ARG002  the chain's own T
        """Return the restored images in 0..1, which have the classifier's own normalisation before them."""
        return self.model.restore(images) * self.model.std + self.model.mean
