"""The Triton kernel of `benchmarks.pixel_lstm` against PyTorch, in Triton's interpreter on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# The interpreter has to be chosen before Triton is imported, hence the process of its own.
CELL = """
import torch
from benchmarks.pixel_lstm import pixel_lstm
from ccr_deploy.models.conv_lstm import ConvLstmCell

torch.manual_seed(0)
for channels, shared in ((32, False), (64, False), (64, True)):
    cell = ConvLstmCell(3, channels, 2).eval()
    iterations, images = 3, 2
    features = torch.randn(images * (1 if shared else iterations), 3, 6, 10)
    with torch.inference_mode():
        gates = cell.input_conv(features).contiguous(memory_format=torch.channels_last)
        found = pixel_lstm(cell, gates, iterations, shared=shared)
        state, expected = None, []
        for own in [gates] * iterations if shared else gates.chunk(iterations):
            sum_of_gates = own if state is None else own + cell.hidden_conv(state[0])
            state = cell.gates(sum_of_gates, None if state is None else state[1])
            expected.append(state[0])
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-6, rtol=1e-5)
print("equal")
"""

ENCODER = """
import torch
from msgspec import structs
from benchmarks.gpu_schedules import LstmKernelEncoder
from ccr_deploy.backends.pytorch.packed import PackedEncoder
from ccr_deploy.models.chain import CcrChain
from ccr_deploy.models.presets import default_preprocessing, preset

torch.manual_seed(0)
config = preset("demo")
config = structs.replace(config, encoder=structs.replace(config.encoder, cell_channels=(32, 64, 32)))
encoder = CcrChain(config).encoder.eval()
images = torch.randint(0, 256, (2, config.image_height, config.image_width, 3), dtype=torch.uint8)
arguments = encoder, config.iterations, default_preprocessing(config)
with torch.inference_mode():
    found, expected = (
        kind(*arguments, dtype=torch.float32, schedule="layer-major")(images)
        for kind in (LstmKernelEncoder, PackedEncoder)
    )
assert found.unique().numel() > 10
torch.testing.assert_close(found, expected)
print("equal")
"""


@pytest.mark.parametrize("program", [CELL, ENCODER], ids=["cell", "encoder"])
def test_the_kernel_computes_what_the_model_does(program: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.stdout == "equal\n", ran.stderr
