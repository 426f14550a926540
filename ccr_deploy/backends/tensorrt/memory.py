"""An engine's memory: on the GPU, pinned on the host, and the stream that copies between the two."""

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
    """Allocates on the GPU and on the host, and counts what it took of the GPU.

    Everything is given back when the stack that it was made with unwinds.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._runtime: Any = cuda_runtime()
        self.device_bytes = 0
        non_blocking = self._runtime.cudaStreamNonBlocking
        self.stream = int(checked(self._runtime.cudaStreamCreateWithFlags(non_blocking)))
        stack.callback(self._runtime.cudaStreamDestroy, self.stream)

    def on_device(self, size: int) -> int:
        """The address of `size` bytes on the GPU, aligned to 256 bytes as CUDA does."""
        address = int(checked(self._runtime.cudaMalloc(max(1, size))))
        self._stack.callback(self._runtime.cudaFree, address)
        self.device_bytes += size
        return address

    def pinned(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[np.generic]:
        """An array in pinned memory of the host, which the GPU copies from and to without a detour."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        address = int(checked(self._runtime.cudaMallocHost(size)))
        self._stack.callback(self._runtime.cudaFreeHost, address)
        block = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(memoryview(block), dtype=dtype).reshape(shape)

    def copy_to_device(self, address: int, host: npt.NDArray[np.generic]) -> None:
        """Enqueues a copy of a pinned array to the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(self._runtime.cudaMemcpyAsync(address, host.ctypes.data, host.nbytes, kind, self.stream))

    def copy_to_host(self, host: npt.NDArray[np.generic], address: int) -> None:
        """Enqueues a copy from the GPU into a pinned array."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(self._runtime.cudaMemcpyAsync(host.ctypes.data, address, host.nbytes, kind, self.stream))

    def copy_on_device(self, target: int, source: int, size: int) -> None:
        """Enqueues a copy within the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        checked(self._runtime.cudaMemcpyAsync(target, source, size, kind, self.stream))

    def wait(self) -> None:
        """Waits until all that was enqueued is done."""
        checked(self._runtime.cudaStreamSynchronize(self.stream))


class BorderBuffer:
    """Memory of one input or output tensor, on the GPU and pinned on the host, for the largest batch."""

    def __init__(self, memory: Memory, spec: TensorSpec, largest_batch: int) -> None:
        self.spec = spec
        shape = (largest_batch, *(size or 1 for size in spec.shape[1:]))
        self.host = memory.pinned(shape, spec.dtype)
        self.address = memory.on_device(self.host.nbytes)
