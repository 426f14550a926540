"""How well a compressor restores images after each iteration: L1, PSNR and MS-SSIM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
)

from ccr_deploy import CREATED_BY
from ccr_deploy.codec.contract import DOWNSAMPLING
from ccr_deploy.models.chain import normalise, residual_loop
from training.evaluation.results import IterationQuality, Restoration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.decoder import Decoder
    from ccr_deploy.models.encoder import RecurrentEncoder
    from training.data.open import TestImages

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales, from the finest on: Wang, Simoncelli, Bovik, "Multi-scale structural similarity for
image quality assessment", Asilomar 2003, section 3.2."""
_WINDOW = 11
"""Side in pixels of the Gaussian window of SSIM, which must fit into the coarsest scale."""


@dataclass(frozen=True)
class Restorer:
    """Restores images with an encoder and a decoder in a residual loop, in evaluation mode.

    Attributes:
        encoder: the encoder.
        decoder: the decoder.
        preprocessing: the normalisation of the encoder's images.
    """

    encoder: RecurrentEncoder
    decoder: Decoder
    preprocessing: Preprocessing

    def restore(self, images: Tensor, iterations: int) -> tuple[Tensor, ...]:
        """Return the restored images after each iteration, ``float32 [N, 3, H, W]`` in 0..1.

        Args:
            images: ``uint8 [N, H, W, 3]``.
            iterations: the number of iterations T.
        """
        # In evaluation the bits are not drawn at random. A caller may be in the middle of a training.
        was_training = self.encoder.training
        self.encoder.eval()
        try:
            with torch.inference_mode():
                normalised = normalise(images, self.preprocessing)
                residuals = residual_loop(self.encoder, self.decoder, normalised, iterations)
                return tuple(self._pixels(normalised - residual) for residual in residuals)
        finally:
            self.encoder.train(was_training)

    def _pixels(self, normalised: Tensor) -> Tensor:
        """Undo the normalisation; values outside of 0..1, which no image has, are clipped."""
        mean, std = (
            torch.tensor(values, device=normalised.device).view(3, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        return (normalised * std + mean).clamp(0, 1)


def restoration_quality(
    restorer: Restorer, batches: Iterable[Tensor], iterations: int
) -> tuple[IterationQuality, ...]:
    """Measure how well images are restored after each iteration; all measures are means over the images.

    Args:
        restorer: encoder and decoder.
        batches: images ``uint8 [N, H, W, 3]``, at least one.
        iterations: the number of iterations T.
    """
    sums = torch.zeros(iterations, 3, dtype=torch.float64)
    count = 0
    for images in batches:
        original = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        for number, restored in enumerate(restorer.restore(images, iterations)):
            sums[number] += _summed(restored, original).cpu()
        count += len(images)
    return tuple(
        IterationQuality(iteration=number, l1=l1, psnr_db=psnr, ms_ssim=ms_ssim)
        for number, (l1, psnr, ms_ssim) in enumerate((sums / count).tolist(), start=1)
    )


def measure_restoration(
    restorer: Restorer, images: TestImages, iterations: int, *, batch: int = 64, workers: int = 0
) -> Restoration:
    """Measure how well test images are restored after each iteration.

    Args:
        restorer: encoder and decoder.
        images: the test images; their labels are ignored.
        iterations: the number of iterations T.
        batch: number of images that are computed together.
        workers: number of processes that load images; 0 to load them in this one.

    Raises:
        ImageError: if an image cannot be used.
    """
    device = restorer.encoder.stem.weight.device
    loader = DataLoader(images.dataset, batch_size=batch, num_workers=workers)
    quality = restoration_quality(restorer, (pixels.to(device) for pixels, _ in loader), iterations)
    height, width, _ = images.dataset[0][0].shape
    code_elements = restorer.encoder.binarizer.conv.out_channels * height * width // DOWNSAMPLING**2
    return Restoration(
        created_by=CREATED_BY,
        data=images.name,
        images=len(images.groups),
        image_height=height,
        image_width=width,
        code_bytes=code_elements // 8,
        ms_ssim_scales=len(ms_ssim_weights(height, width)),
        per_iteration=quality,
    )


def ms_ssim_weights(height: int, width: int) -> tuple[float, ...]:
    """Return the weights of as many scales as fit an image, at most five; their sum is 1.

    Five scales need 176 pixels, three 44. Values with different numbers of scales are not comparable.

    Args:
        height: the image height in pixels, at least 11.
        width: the image width in pixels, at least 11.
    """
    # torchmetrics divides the side by (scales - 1)², the filter by 2 for each further scale: both must fit.
    scales = max(
        number
        for number in range(1, len(MS_SSIM_WEIGHTS) + 1)
        if min(height, width) // max((number - 1) ** 2, 2 ** (number - 1)) >= _WINDOW
    )
    weights = MS_SSIM_WEIGHTS[:scales]
    return tuple(weight / sum(weights) for weight in weights)


def _summed(restored: Tensor, original: Tensor) -> Tensor:
    """Return the sums over the images of L1, PSNR and MS-SSIM: ``float64 [3]``."""
    psnr = peak_signal_noise_ratio(restored, original, data_range=1.0, dim=(1, 2, 3), reduction="none")
    ms_ssim = multiscale_structural_similarity_index_measure(
        restored,
        original,
        data_range=1.0,
        betas=ms_ssim_weights(*original.shape[-2:]),
        normalize="relu",  # the power of a negative similarity would be NaN
        reduction="none",
    )
    l1 = (restored - original).abs().mean(dim=(1, 2, 3))
    return torch.stack([values.double().sum() for values in (l1, psnr, ms_ssim)])
