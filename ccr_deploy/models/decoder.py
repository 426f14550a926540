"""The baseline's recurrent decoder: code to image.

After Toderici et al., "Full Resolution Image Compression with Recurrent Neural Networks", CVPR 2017, but with
nearest-neighbour upsampling instead of depth-to-space, as the parameter counts of the paper's Table 1 imply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ccr_deploy.models.conv_lstm import ConvLstmCells, State

if TYPE_CHECKING:
    from ccr_deploy.models.config import DecoderConfig


class Decoder(nn.Module):
    """Restores an image part from each code with four ConvLSTM cells.

    ::

        code [N, 32, H/16, W/16]
          cells.0     ConvLSTM at 1/16, up x2      [N, 256, H/8, W/8]
          cells.1     ConvLSTM at 1/8, up x2       [N, 192, H/4, W/4]
          cells.2     ConvLSTM at 1/4, up x2       [N, 192, H/2, W/2]
          cells.3     ConvLSTM at 1/2, up x2       [N, 128, H, W]
          output      conv 1x1, tanh / 2           [N, 3, H, W]         in -0.5..0.5

    The output has the encoder's normalisation: with mean 0.5 and standard deviation 1, images are in
    -0.5..0.5.
    """

    def __init__(self, config: DecoderConfig, code_channels: int) -> None:
        super().__init__()
        channels = (code_channels, *config.cell_channels)
        self.cells = ConvLstmCells(channels, stride=1, upsampled=True)
        self.output = nn.Conv2d(config.cell_channels[-1], 3, 1, bias=False)

    def step(self, code: Tensor, states: list[State | None]) -> tuple[Tensor, list[State | None]]:
        """Run one iteration; return the decoded part ``[N, 3, H, W]`` and the new state of each cell."""
        features, new_states = self.cells.step(code, states)
        return torch.tanh(self.output(features)) / 2, new_states
