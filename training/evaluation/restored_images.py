"""Restored images of a compressor or a baseline as a grid, during its training and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from training.evaluation.grids import restoration_grid, write_grid
from training.evaluation.restoration import Restorer
from training.modules.baseline import BaselineModule
from training.modules.compressor import CompressorModule

if TYPE_CHECKING:
    from pathlib import Path

    import lightning
    from PIL import Image

    from training.data.open import TestImages

SHOWN = 6


def restorer_of(module: lightning.LightningModule) -> Restorer:
    """Return encoder and decoder of the module of a compressor or a baseline."""
    assert isinstance(module, CompressorModule | BaselineModule)
    networks = module if isinstance(module, CompressorModule) else module.model
    return Restorer(networks.encoder, networks.decoder, module.preprocessing)


class ShowRestoredImages(Callback):
    """Writes some test images, restored after each iteration, as a grid: to a file and to TensorBoard.

    Args:
        images: the test images; some that are spread evenly over them are shown.
        iterations: the number of iterations T.
        path: the file, which is replaced at each validation.
    """

    def __init__(self, images: TestImages, iterations: int, path: Path) -> None:
        count = len(images.groups)
        chosen = np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int)
        self.originals = torch.stack([images.dataset[int(index)][0] for index in chosen])
        self.iterations, self.path = iterations, path

    def write(self, restorer: Restorer) -> Image.Image:
        """Restore the images, and write and return the grid."""
        originals = self.originals.to(restorer.encoder.stem.weight.device)
        grid = restoration_grid(originals, restorer.restore(originals, self.iterations))
        write_grid(grid, self.path)
        return grid

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore the images and write the grid, in the process of rank 0."""
        if not trainer.is_global_zero:
            return
        grid = self.write(restorer_of(pl_module))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    "restored", np.asarray(grid), trainer.global_step, dataformats="HWC"
                )
