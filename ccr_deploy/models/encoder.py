"""The recurrent encoder: image to code in T iterations.

Toderici et al., "Full Resolution Image Compression with Recurrent Neural Networks", CVPR 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ccr_deploy.models.binarizer import Binarizer
from ccr_deploy.models.conv_lstm import ConvLstmCells, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.models.config import EncoderConfig


class RecurrentEncoder(nn.Module):
    """Encodes normalised images with a stem, three ConvLSTM cells and a binarizer.

    ::

        image [N, 3, H, W]
          stem        conv 3x3, stride 2           [N, 64, H/2, W/2]
          cells.0     ConvLSTM, stride 2           [N, 32, H/4, W/4]    state kept between iterations
          cells.1     ConvLSTM, stride 2           [N, 192, H/8, W/8]   "
          cells.2     ConvLSTM, stride 2           [N, 384, H/16, W/16] "
          binarizer   conv 1x1, tanh, sign         [N, 32, H/16, W/16]  in {-1, +1}

    A CCR chain has no decoder at run time: every iteration reads the same image, only the states change, and
    the code is that of the last iteration. So the stem and the first input convolution run once per image, in
    training too. In the baseline and while the compressor is trained, each iteration reads the residual of
    the previous one (`step`).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = (config.stem_channels, *config.cell_channels)
        self.cell_channels = config.cell_channels
        self.stem = nn.Conv2d(3, config.stem_channels, 3, stride=2, padding=1, bias=False)
        self.cells = ConvLstmCells(channels, stride=2)
        self.binarizer = Binarizer(config.cell_channels[-1], config.code_channels)

    def forward(self, image: Tensor, iterations: int) -> Tensor:
        """Return the codes of normalised images ``[N, 3, H, W]`` after T iterations."""
        return self.binarizer(self.features(image, iterations))

    def pre_binarization(self, image: Tensor, iterations: int) -> Tensor:
        """Return the pre-binarization activations ``[N, code_channels, H/16, W/16]`` after T iterations."""
        return self.binarizer.conv(self.features(image, iterations))

    def each_pre_binarization(self, image: Tensor, iterations: int) -> Iterator[Tensor]:
        """Yield the pre-binarization activations after each iteration, as if it were the last."""
        for features in self.each_features(image, iterations):
            yield self.binarizer.conv(features)

    def features(self, image: Tensor, iterations: int) -> Tensor:
        """Return the last cell's hidden state ``[N, cell_channels[-1], H/16, W/16]`` after T iterations."""
        for features in self.each_features(image, iterations):
            last = features
        return last

    def each_features(self, image: Tensor, iterations: int) -> Iterator[Tensor]:
        """Yield the last cell's hidden state after each iteration on one image."""
        # Iteration after iteration in training too: layer after layer, with the input convolutions of all
        # iterations as one batch, is slower on a CPU (`benchmarks.training_speed`).
        first_gates = self.cells.first_gates(self.stem(image))
        states: list[State | None] = [None] * len(self.cells)
        for _ in range(iterations):
            features, states = self.cells.step_from_gates(first_gates, states)
            yield features

    def step(self, image: Tensor, states: list[State | None]) -> tuple[Tensor, list[State | None]]:
        """Run one iteration; return the last cell's hidden state and the new state of each cell."""
        return self.cells.step(self.stem(image), states)
