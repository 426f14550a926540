"""Plain exports: the user's own loop with ``torch.onnx.export`` and its defaults.

The loop is the one that a user writes: T times stem, cells and states, then the binarizer. The network's own
``forward`` runs the stem and the first input convolution only once. The encoder's
input is ``uint8 [N, H, W, 3]``, as the reference's, and its output the code as ``float32 [N, C, h, w]`` in
{-1, +1}, without packing; the classifier's input is that code. The exporter fixes the batch size by default,
so that there is one file for each.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ccr_deploy.models.chain import CcrChain, normalise
from ccr_deploy.models.checkpoint import build_model

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.stages import ChainStage
    from ccr_deploy.models.checkpoint import Checkpoint
    from ccr_deploy.models.conv_lstm import State


class PlainEncoder(nn.Module):
    """An encoder with its normalisation, as a user would write it."""

    def __init__(self, chain: CcrChain, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.encoder = chain.encoder
        self.iterations = checkpoint.config.iterations
        self.preprocessing = checkpoint.preprocessing

    def forward(self, image: Tensor) -> Tensor:
        """Return the codes ``float32 [N, C, h, w]`` of images ``uint8 [N, H, W, 3]``."""
        pixels = normalise(image, self.preprocessing)
        states: list[State | None] = [None] * len(self.encoder.cells)
        for _ in range(self.iterations):
            features, states = self.encoder.step(pixels, states)
        return self.encoder.binarizer(features)


def plain_export(checkpoint: Checkpoint, stage: ChainStage, batch: int, file: Path) -> Path:
    """Export a stage as a user would, and return the file.

    Args:
        checkpoint: the checkpoint.
        stage: the stage.
        batch: the batch size.
        file: the path of the ONNX file.
    """
    chain, config = build_model(checkpoint), checkpoint.config
    assert isinstance(chain, CcrChain)
    module: nn.Module = chain.classifier
    example = torch.ones(batch, *config.code_shape)
    if stage == "encoder":
        module = PlainEncoder(chain, checkpoint).eval()
        example = torch.zeros(batch, config.image_height, config.image_width, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        names = ["image" if stage == "encoder" else "code"]
        torch.onnx.export(module, (example,), file, input_names=names, verbose=False)
    return file
