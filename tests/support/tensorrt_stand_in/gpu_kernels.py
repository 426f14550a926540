"""The kernels of the stand-in's engine on a real GPU, compiled by NVRTC: no proof of TensorRT."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from ccr_deploy.core.gpu import checked, find_gpu
from tests.support.tensorrt_stand_in.kernels import BIAS_BYTES, CODE_BYTES, IMAGE_BYTES, LOGITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.tensorrt_stand_in.cuda_types import Owner
    from tests.support.tensorrt_stand_in.kernels import Addresses

SOURCE = f"""
extern "C" __global__ void add(const unsigned char *image, unsigned int *sums, int batch) {{
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= batch) return;
    unsigned int sum = 0;
    for (int i = 0; i < {IMAGE_BYTES}; i++) sum += image[row * {IMAGE_BYTES} + i];
    sums[row] = sum;
}}

extern "C" __global__ void finish(
    unsigned int *sums, const unsigned char *bias, unsigned char *code, float *logits, int batch
) {{
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= batch) return;
    const unsigned char *own = bias + row * {BIAS_BYTES};
    for (int i = 0; i < {CODE_BYTES}; i++) code[row * {CODE_BYTES} + i] = sums[row] + 7 * i + own[0];
    for (int i = 0; i < {LOGITS}; i++) logits[row * {LOGITS} + i] = sums[row] * (i + 1) + own[1 + i];
    sums[row] = 0xFFFFFFFF;  // the scratch memory keeps nothing for a later run
}}
"""
_THREADS = 32


def compiled(compute_capability: str) -> bytes:
    """Compile the kernels for a compute capability, such as ``9.0``."""
    from cuda.bindings import nvrtc

    program = checked(nvrtc.nvrtcCreateProgram(SOURCE.encode(), b"stand_in.cu", 0, [], []))
    option = f"--gpu-architecture=sm_{compute_capability.replace('.', '')}".encode()
    checked(nvrtc.nvrtcCompileProgram(program, 1, [option]))
    binary = bytearray(checked(nvrtc.nvrtcGetCUBINSize(program)))
    checked(nvrtc.nvrtcGetCUBIN(program, binary))
    checked(nvrtc.nvrtcDestroyProgram(program))
    return bytes(binary)


class GpuKernels:
    """The kernels on this machine's GPU."""

    def __init__(self, cuda: Any) -> None:
        """Compile and load them.

        Args:
            cuda: the bindings of the CUDA runtime.
        """
        from cuda.bindings import driver

        checked(cuda.cudaFree(0))  # creates the CUDA context
        self._cuda, self._driver = cuda, driver
        self._binary = compiled(find_gpu().compute_capability)
        self._module = checked(driver.cuModuleLoadData(self._binary))
        self._add = checked(driver.cuModuleGetFunction(self._module, b"add"))
        self._finish = checked(driver.cuModuleGetFunction(self._module, b"finish"))

    def launch(self, stream: int, at: Addresses, batch: int, owner: Owner) -> None:  # noqa: ARG002
        self._start(self._add, stream, (at.image, at.scratch), batch)
        self._start(self._finish, stream, (at.scratch, at.bias, at.code, at.logits), batch)

    def is_capturing(self, stream: int) -> bool:
        status = checked(self._cuda.cudaStreamIsCapturing(stream))
        return bool(status != self._cuda.cudaStreamCaptureStatus.cudaStreamCaptureStatusNone)

    def destroy_owner(self, owner: Owner) -> None:
        """Do nothing: CUDA does not know the library's objects."""

    def _start(self, function: Any, stream: int, addresses: Sequence[int], batch: int) -> None:
        values = (*addresses, batch)
        types = (*(ctypes.c_void_p for _ in addresses), ctypes.c_int)
        blocks = -(-batch // _THREADS)
        launch = self._driver.cuLaunchKernel
        checked(launch(function, blocks, 1, 1, _THREADS, 1, 1, 0, stream, (values, types), 0))
