"""The memory of an engine, on the GPU and pinned on the host, and the streams that copy between the two."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.core.gpu import checked

if TYPE_CHECKING:
    from contextlib import ExitStack

    import numpy.typing as npt

    from ccr_deploy.backends.runner import TensorSpec


class Memory:
    """Allocate memory on the GPU and on the host, and count the bytes on the GPU."""

    def __init__(self, cuda: Any, stack: ExitStack) -> None:  # noqa: ANN401 -- the library has no types
        """Allocate nothing yet.

        Args:
            cuda: the bindings of the CUDA runtime.
            stack: releases the memory when it unwinds.
        """
        self._cuda = cuda
        self._stack = stack
        self.device_bytes = 0

    def on_device(self, size: int) -> int:
        """Allocate `size` bytes on the GPU, and return their address, which CUDA aligns to 256 bytes."""
        address = int(checked(self._cuda.cudaMalloc(max(1, size))))  # 0 bytes would give a null pointer
        self._stack.callback(self._cuda.cudaFree, address)
        self.device_bytes += size
        return address

    def pinned(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[np.generic]:
        """Allocate an array in page-locked host memory, which copies need to be asynchronous."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        address = int(checked(self._cuda.cudaMallocHost(size)))
        self._stack.callback(self._cuda.cudaFreeHost, address)
        block = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(memoryview(block), dtype=dtype).reshape(shape)


class TensorBuffer:
    """The memory of one input or output tensor, on the GPU and pinned on the host, for the largest batch."""

    def __init__(self, memory: Memory, spec: TensorSpec, largest_batch: int) -> None:
        self.spec = spec
        self.item_shape = tuple(size or 1 for size in spec.shape[1:])
        self.host = memory.pinned((largest_batch, *self.item_shape), spec.dtype)
        self.address = memory.on_device(self.host.nbytes)


class Stream:
    """A CUDA stream with an event, by which another stream can wait for a part of its work."""

    def __init__(self, cuda: Any, stack: ExitStack) -> None:  # noqa: ANN401
        """Create the stream and the event.

        Args:
            cuda: the bindings of the CUDA runtime.
            stack: destroys both when it unwinds.
        """
        self._cuda = cuda
        self.handle = int(checked(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)))
        stack.callback(cuda.cudaStreamDestroy, self.handle)
        self._mark = checked(cuda.cudaEventCreateWithFlags(cuda.cudaEventDisableTiming))
        stack.callback(cuda.cudaEventDestroy, self._mark)

    def copy_to_device(self, address: int, host: npt.NDArray[np.generic]) -> None:
        """Enqueue a copy of a pinned array to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(self._cuda.cudaMemcpyAsync(address, host.ctypes.data, host.nbytes, kind, self.handle))

    def copy_to_host(self, host: npt.NDArray[np.generic], address: int) -> None:
        """Enqueue a copy from the GPU to a pinned array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(self._cuda.cudaMemcpyAsync(host.ctypes.data, address, host.nbytes, kind, self.handle))

    def copy_on_device(self, target: int, source: int, size: int) -> None:
        """Enqueue a copy within the GPU.

        Args:
            target: the address to copy to.
            source: the address to copy from.
            size: the number of bytes.
        """
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        checked(self._cuda.cudaMemcpyAsync(target, source, size, kind, self.handle))

    def mark(self) -> None:
        """Record the event: `wait_for_mark` waits for all work that was enqueued so far."""
        checked(self._cuda.cudaEventRecord(self._mark, self.handle))

    def wait_for_mark(self, other: Stream) -> None:
        """Let later work of this stream start after the last mark of another stream; returns at once."""
        checked(self._cuda.cudaStreamWaitEvent(self.handle, other._mark, 0))

    def wait(self) -> None:
        """Wait until all enqueued work is complete."""
        checked(self._cuda.cudaStreamSynchronize(self.handle))
