"""Compose the stem and the first input convolution into one convolution.

Nothing is between the two: no bias, no activation. Two 3x3 convolutions with stride 2 and padding 1 are one
7x7 convolution with stride 4 and padding 3. In the paper's encoder it has 59 instead of 253 million
multiply-accumulates. The borders are exact too. Beyond the top and the left, the stem's output would be 0,
because it has no bias and reads only padding there, as the second convolution's padding assumes. Beyond the
bottom and the right, the second convolution reads nothing, because the image's height and width are multiples
of 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import conv_transpose2d

if TYPE_CHECKING:
    from ccr_deploy.export.unroll import UnrolledEncoder


def compose_stem(unrolled: UnrolledEncoder) -> None:
    """Replace the stem and the first cell's input convolution by their composition, in place.

    The result is named after the input convolution, whose output it computes. The recurrent encoder, whose
    weights the unrolled one shares, does not change.
    """
    first = unrolled.cell(1)
    assert isinstance(unrolled.stem, nn.Conv2d)
    assert isinstance(first.input_conv, nn.Conv2d)
    first.input_conv = composed(unrolled.stem, first.input_conv)
    unrolled.stem = nn.Identity()


def composed(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Return the convolution that computes two convolutions without bias, one after the other.

    Its kernel is ``sum over m of second[o, m, b] * first[m, i, a]`` at ``a + stride * b``, where `stride` is
    the first convolution's: a transposed convolution of the second kernel with the first. It is computed in
    double precision and rounded once.
    """
    assert first.bias is None
    assert second.bias is None
    assert isinstance(first.padding, tuple)
    assert isinstance(second.padding, tuple)
    stride = first.stride[0]
    with torch.no_grad():
        kernel = conv_transpose2d(second.weight.double(), first.weight.double(), stride=stride).float()
    result = nn.Conv2d(
        first.in_channels,
        second.out_channels,
        kernel.shape[2],
        stride=stride * second.stride[0],
        padding=first.padding[0] + stride * second.padding[0],
        bias=False,
        device="meta",  # without random weights
    )
    result.weight = nn.Parameter(kernel, requires_grad=False)
    return result
