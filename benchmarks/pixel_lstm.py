"""All iterations of a ConvLSTM cell after its input convolution, as one Triton kernel.

A cell's hidden convolution is 1x1, so that in layer-major order the T iterations after the input convolution
are an LSTM per pixel, without coupling between pixels. One program runs all iterations of a block of pixels:
it reads the gates of the input convolution once and writes the hidden states once. Triton cannot index
registers, so that a program reads the previous hidden state and its cell state back through the cache: a
kernel that keeps both in registers would be faster. TensorRT has no such
operator. `benchmarks.gpu_schedules` measures whether a plugin would be worth building.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from ccr_deploy.models.conv_lstm import ConvLstmCell

_CHUNK = 32
"""The number of channels whose gates a program computes at a time."""


@triton.jit  # type: ignore[untyped-decorator]
def pixel_lstm_kernel(  # type: ignore[no-untyped-def]
    gates_pointer,  # [T or 1, pixels, 4 * CHANNELS]: the input convolution's gates, in the order i, f, g, o
    weights_pointer,  # [CHANNELS, 4 * CHANNELS]: the weights of the hidden convolution, transposed
    hidden_pointer,  # [T, pixels, CHANNELS]: the hidden states, the result
    memory_pointer,  # [pixels, CHANNELS]: scratch for the cell state, in FP32
    pixels,
    iterations,
    gates_step,  # pixels, or 0 if all iterations have the same gates
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Run all iterations of a block of pixels."""
    rows = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    is_pixel = (rows < pixels)[:, None]
    # In 64 bits: T * pixels * 4 * CHANNELS exceeds 32 bits for large batches.
    row_offsets = rows.to(tl.int64)[:, None]
    chunk = tl.arange(0, CHUNK)
    for t in range(iterations):
        gates_start = (t * gates_step + row_offsets) * (4 * CHANNELS)
        hidden_start = (t * pixels + row_offsets) * CHANNELS
        previous_start = hidden_start - pixels * CHANNELS
        for start in range(0, CHANNELS, CHUNK):
            columns = (start + chunk)[None, :]
            own = gates_pointer + gates_start + columns
            i = tl.load(own, mask=is_pixel, other=0).to(tl.float32)
            f = tl.load(own + CHANNELS, mask=is_pixel, other=0).to(tl.float32)
            g = tl.load(own + 2 * CHANNELS, mask=is_pixel, other=0).to(tl.float32)
            o = tl.load(own + 3 * CHANNELS, mask=is_pixel, other=0).to(tl.float32)
            if t > 0:  # the first hidden state is zero
                for inner in range(0, CHANNELS, CHUNK):
                    # Through the cache: the program wrote it in the previous iteration.
                    hidden = tl.load(
                        hidden_pointer + previous_start + (inner + chunk)[None, :], mask=is_pixel, other=0
                    )
                    weights = weights_pointer + (inner + chunk)[:, None] * (4 * CHANNELS) + columns
                    i = tl.dot(hidden, tl.load(weights), i)
                    f = tl.dot(hidden, tl.load(weights + CHANNELS), f)
                    g = tl.dot(hidden, tl.load(weights + 2 * CHANNELS), g)
                    o = tl.dot(hidden, tl.load(weights + 3 * CHANNELS), o)
            memory = memory_pointer + row_offsets * CHANNELS + columns
            cell = tl.sigmoid(i) * (2 * tl.sigmoid(2 * g) - 1)  # tanh(x) = 2 sigmoid(2x) - 1
            if t > 0:
                cell += tl.sigmoid(f) * tl.load(memory, mask=is_pixel, other=0)
            tl.store(memory, cell, mask=is_pixel)
            new = tl.sigmoid(o) * (2 * tl.sigmoid(2 * cell) - 1)
            tl.store(
                hidden_pointer + hidden_start + columns,
                new.to(hidden_pointer.dtype.element_ty),
                mask=is_pixel,
            )
        tl.debug_barrier()  # the next iteration reads the hidden states that other threads have written


_TUNED = triton.autotune(
    configs=[
        triton.Config({"PIXELS": pixels}, num_warps=warps, num_stages=stages)
        for pixels, warps in ((16, 4), (32, 4), (64, 4), (64, 8), (128, 8))
        for stages in (2, 3)
    ],
    key=["pixels", "CHANNELS"],
)(pixel_lstm_kernel)
"""The kernel with the fastest configuration for its size, which the first run on a GPU finds."""


def pixel_lstm(cell: ConvLstmCell, gates: Tensor, iterations: int, *, shared: bool = False) -> Tensor:
    """Return the hidden states of all iterations.

    Args:
        cell: the cell, whose channels are a multiple of 32.
        gates: the gates of its input convolution, ``[T * N, 4 * channels, rows, columns]`` in channels_last,
            iteration after iteration.
        iterations: the number of iterations T.
        shared: whether `gates`, then of N images, are those of every iteration.

    Returns:
        The hidden states ``[T * N, channels, rows, columns]`` in channels_last, of the gates' type.
    """
    images, channels = gates.shape[0] // (1 if shared else iterations), gates.shape[1] // 4
    rows, columns = gates.shape[2:]
    pixels = images * rows * columns
    by_pixel = gates.permute(0, 2, 3, 1).contiguous()  # no copy of a tensor in channels_last
    weights = cell.hidden_conv.weight.flatten(1).t().contiguous()
    hidden = torch.empty(iterations * images, rows, columns, channels, dtype=gates.dtype, device=gates.device)
    memory = torch.empty(pixels, channels, dtype=torch.float32, device=gates.device)
    arguments = by_pixel, weights, hidden, memory, pixels, iterations, 0 if shared else pixels
    sizes = {"CHANNELS": channels, "CHUNK": _CHUNK}
    if gates.is_cuda:
        _TUNED[lambda meta: (triton.cdiv(pixels, meta["PIXELS"]),)](*arguments, **sizes)
    else:  # Triton's interpreter, which tests use
        pixel_lstm_kernel[(triton.cdiv(pixels, 16),)](*arguments, **sizes, PIXELS=16)
    return hidden.permute(0, 3, 1, 2)
