"""The composition of the stem and the first input convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ccr_deploy.export.composition import compose_stem, composed
from ccr_deploy.export.unroll import unroll
from ccr_deploy.models.config import EncoderConfig
from ccr_deploy.models.encoder import RecurrentEncoder


def conv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (20, 48)])
def test_two_convolutions_are_one_with_equal_borders(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    first, second = conv(3, 5, 3, 2, 1).double(), conv(5, 8, 3, 2, 1).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    both = composed(first, second)
    assert (both.kernel_size, both.stride, both.padding, both.bias) == ((7, 7), (4, 4), (3, 3), None)
    result = nn.functional.conv2d(image, both.weight.double(), stride=4, padding=3)
    expected = second(first(image))
    assert result.shape == expected.shape
    # Only the weights are rounded, once to FP32.
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5 * expected.detach().abs().max().item())


def test_sizes_that_are_not_multiples_of_4_would_have_other_borders() -> None:
    torch.manual_seed(0)
    first, second = conv(3, 5, 3, 2, 1), conv(5, 8, 3, 2, 1)
    image = torch.randn(1, 3, 18, 16)
    result, expected = composed(first, second)(image), second(first(image))
    assert result.shape == expected.shape
    torch.testing.assert_close(result[:, :, :-1], expected[:, :, :-1])
    assert not torch.allclose(result[:, :, -1], expected[:, :, -1], atol=1e-3)


@pytest.mark.parametrize("schedule", ["iteration-major", "layer-major"])
def test_composing_changes_the_unrolled_encoder_and_not_the_recurrent_one(schedule: str) -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(EncoderConfig(stem_channels=5, cell_channels=(3, 7, 9), code_channels=8))
    unrolled = unroll(encoder, 3, schedule)
    image = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        before, uncomposed = encoder.pre_binarization(image, 3), unrolled(image)
        compose_stem(unrolled)
        torch.testing.assert_close(unrolled(image), uncomposed)
        assert torch.equal(encoder.pre_binarization(image, 3), before)
    assert isinstance(unrolled.stem, nn.Identity)
    assert encoder.cells[0].input_conv.weight.shape == (12, 5, 3, 3)
