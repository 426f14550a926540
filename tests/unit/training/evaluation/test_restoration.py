"""The quality of restored images, against definitions written out here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.models.chain import normalise, residual_loop
from ccr_deploy.models.config import DecoderConfig, EncoderConfig
from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder
from training.data.open import TestImages
from training.evaluation.grids import restoration_grid, write_grid
from training.evaluation.restoration import (
    Restorer,
    measure_restoration,
    ms_ssim_weights,
    restoration_quality,
)

PREPROCESSING = Preprocessing(resize_to_cover=(48, 64), mean=(0.4, 0.5, 0.6), std=(0.9, 1.0, 1.1))


@pytest.fixture
def restorer() -> Restorer:
    torch.manual_seed(0)
    config = EncoderConfig(stem_channels=4, cell_channels=(4, 6, 8), code_channels=16)
    encoder, decoder = RecurrentEncoder(config), Decoder(DecoderConfig(cell_channels=(8, 6, 6, 4)), 16)
    return Restorer(encoder, decoder, PREPROCESSING)


def images(count: int) -> torch.Tensor:
    values = np.random.default_rng(1).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)
    return torch.from_numpy(values)


def test_restored_images_are_those_of_the_residual_loop(restorer: Restorer) -> None:
    given = images(2)
    restored = restorer.restore(given, 3)
    restorer.encoder.eval()
    normalised = normalise(given, PREPROCESSING)
    with torch.inference_mode():
        residuals = residual_loop(restorer.encoder, restorer.decoder, normalised, 3)
    for found, residual in zip(restored, residuals, strict=True):
        pixels = (normalised - residual).permute(0, 2, 3, 1) * torch.tensor(PREPROCESSING.std)
        pixels = (pixels + torch.tensor(PREPROCESSING.mean)).clamp(0, 1)
        torch.testing.assert_close(found.permute(0, 2, 3, 1), pixels)


def test_restoring_does_not_draw_bits_and_keeps_the_mode(restorer: Restorer) -> None:
    restorer.encoder.train()
    first, again = restorer.restore(images(2), 2), restorer.restore(images(2), 2)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert restorer.encoder.training


def test_l1_and_psnr_are_means_over_images_in_any_batches(restorer: Restorer) -> None:
    given = images(5)
    found = restoration_quality(restorer, [given[:3], given[3:]], 2)
    original = given.numpy().astype(np.float64) / 255
    for quality, restored in zip(found, restorer.restore(given, 2), strict=True):
        difference = restored.permute(0, 2, 3, 1).numpy() - original
        squares = (difference**2).mean(axis=(1, 2, 3))
        assert quality.l1 == pytest.approx(np.abs(difference).mean(), rel=1e-5)
        assert quality.psnr_db == pytest.approx((-10 * np.log10(squares)).mean(), rel=1e-5)
    assert [quality.iteration for quality in found] == [1, 2]


def test_the_restoration_of_test_images_is_described(restorer: Restorer) -> None:
    given = images(5)
    dataset = list(zip(given, range(5), strict=True))
    found = measure_restoration(restorer, TestImages("noise", dataset, "abcde"), 2, batch=2)  # type: ignore[arg-type]
    assert (found.data, found.images) == ("noise", 5)
    assert (found.image_height, found.image_width) == (48, 64)
    assert found.code_bytes == 16 * 3 * 4 // 8
    assert found.ms_ssim_scales == 3
    expected = restoration_quality(restorer, [given], 2)
    for quality, wanted in zip(found.per_iteration, expected, strict=True):
        assert quality.psnr_db == pytest.approx(wanted.psnr_db)
        assert quality.ms_ssim == pytest.approx(wanted.ms_ssim)


def test_ms_ssim_is_one_for_perfect_images_and_falls_with_noise() -> None:
    class Perfect(Restorer):
        noise = 0.0

        def restore(self, images: torch.Tensor, iterations: int) -> tuple[torch.Tensor, ...]:
            pixels = images.permute(0, 3, 1, 2) / 255
            noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
            return tuple((pixels + scale * noise).clamp(0, 1) for scale in (0.001, 0.05, 0.3))[:iterations]

    found = restoration_quality(Perfect(None, None, PREPROCESSING), [images(2)], 3)  # type: ignore[arg-type]
    values = [quality.ms_ssim for quality in found]
    assert values[0] == pytest.approx(1, abs=1e-3)
    assert values[0] > values[1] > values[2] > 0


@pytest.mark.parametrize(
    ("side", "scales"), [(16, 1), (22, 2), (43, 2), (48, 3), (96, 3), (112, 4), (160, 4), (176, 5), (224, 5)]
)
def test_the_number_of_scales_fits_the_image(side: int, scales: int) -> None:
    weights = ms_ssim_weights(side, 300)
    assert len(weights) == scales
    assert sum(weights) == pytest.approx(1)
    assert weights == ms_ssim_weights(300, side)


@pytest.mark.parametrize("side", [16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176])
def test_every_image_size_has_a_quality(side: int, restorer: Restorer) -> None:
    given = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (1, side, side, 3), dtype=np.uint8))
    (quality,) = restoration_quality(restorer, [given], 1)
    assert 0 <= quality.ms_ssim <= 1


def test_a_grid_has_the_original_and_every_iteration(restorer: Restorer, tmp_path) -> None:
    given = images(2)
    restored = restorer.restore(given, 3)
    path = tmp_path / "new" / "restored.png"
    write_grid(restoration_grid(given, restored), path)
    grid = np.asarray(Image.open(path))
    # Images of 48x64 pixels are doubled, with gaps of 6 pixels, below a heading of 24.
    assert grid.shape == (24 + 2 * (96 + 6), 6 + 4 * (128 + 6), 3)
    second_row, columns = (
        slice(24 + 102, 24 + 102 + 96, 2),
        [slice(6 + n * 134, 6 + n * 134 + 128, 2) for n in range(4)],
    )
    assert np.array_equal(grid[second_row, columns[0]], given[1].numpy())
    for column, values in zip(columns[1:], restored, strict=True):
        expected = values[1].permute(1, 2, 0).numpy() * 255
        assert np.abs(grid[second_row, column] - expected).max() <= 0.5001
    headings = grid[:24].astype(int)
    for column in columns:
        assert (headings[:, column] != headings[0, 0]).any()
