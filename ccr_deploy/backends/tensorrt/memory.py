"""The memory of an engine: on the GPU, pinned on the host, and the stream that copies between the two."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.core.gpu import checked, cuda_runtime

if TYPE_CHECKING:
    from contextlib import ExitStack

    import numpy.typing as npt

    from ccr_deploy.backends.runner import TensorSpec


class Memory:
    """Allocate memory on the GPU and on the host, and count the bytes on the GPU.

    Everything is released when the stack that was given to the constructor unwinds.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._runtime: Any = cuda_runtime()
        self.device_bytes = 0
        non_blocking = self._runtime.cudaStreamNonBlocking
        self.stream = int(checked(self._runtime.cudaStreamCreateWithFlags(non_blocking)))
        stack.callback(self._runtime.cudaStreamDestroy, self.stream)

    def on_device(self, size: int) -> int:
        """Allocate `size` bytes on the GPU, and return their address, which CUDA aligns to 256 bytes."""
        address = int(checked(self._runtime.cudaMalloc(max(1, size))))  # 0 bytes would give a null pointer
        self._stack.callback(self._runtime.cudaFree, address)
        self.device_bytes += size
        return address

    def pinned(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[np.generic]:
        """Allocate an array in page-locked host memory, which copies need to be asynchronous."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        address = int(checked(self._runtime.cudaMallocHost(size)))
        self._stack.callback(self._runtime.cudaFreeHost, address)
        block = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(memoryview(block), dtype=dtype).reshape(shape)

    def copy_to_device(self, address: int, host: npt.NDArray[np.generic]) -> None:
        """Enqueue a copy of a pinned array to the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(self._runtime.cudaMemcpyAsync(address, host.ctypes.data, host.nbytes, kind, self.stream))

    def copy_to_host(self, host: npt.NDArray[np.generic], address: int) -> None:
        """Enqueue a copy from the GPU to a pinned array."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(self._runtime.cudaMemcpyAsync(host.ctypes.data, address, host.nbytes, kind, self.stream))

    def copy_on_device(self, target: int, source: int, size: int) -> None:
        """Enqueue a copy within the GPU.

        Args:
            target: the address to copy to.
            source: the address to copy from.
            size: the number of bytes.
        """
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        checked(self._runtime.cudaMemcpyAsync(target, source, size, kind, self.stream))

    def wait(self) -> None:
        """Wait until all enqueued work is complete."""
        checked(self._runtime.cudaStreamSynchronize(self.stream))


class TensorBuffer:
    """The memory of one input or output tensor, on the GPU and pinned on the host, for the largest batch."""

    def __init__(self, memory: Memory, spec: TensorSpec, largest_batch: int) -> None:
        self.spec = spec
        shape = (largest_batch, *(size or 1 for size in spec.shape[1:]))
        self.host = memory.pinned(shape, spec.dtype)
        self.address = memory.on_device(self.host.nbytes)
