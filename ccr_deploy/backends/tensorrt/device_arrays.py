"""Arrays that are on the GPU already, whichever library holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ccr_deploy.errors import EngineError, MissingExtraError


@dataclass(frozen=True)
class DeviceArray:
    """An array in a GPU's memory: where it begins, its shape and its NumPy type."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object
    """Keeps the memory alive."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def bytes_per_item(self) -> int:
        """How far apart two items of the batch are."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize


def is_device_array(array: object) -> bool:
    """Whether an array offers itself by ``__cuda_array_interface__`` or, from a GPU, by DLPack."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__cuda_array_interface__"):
        return True
    device = getattr(array, "__dlpack_device__", None)
    return device is not None and device()[0] == _DLPACK_CUDA


_DLPACK_CUDA = 2


def view_of(name: str, array: object, stream: int) -> DeviceArray:
    """The memory of input `name`; what its owner still writes is done before `stream` goes on.

    Raises:
        EngineError: the array is on another GPU than the engine, or not contiguous.
        MissingExtraError: cuda-python's core is not installed.
    """
    try:
        from cuda.core.utils import StridedMemoryView
    except ImportError:
        raise MissingExtraError("cuda-core", "rtx", "taking arrays from the GPU") from None
    view = StridedMemoryView.from_any_interface(array, stream_ptr=stream)
    if view.device_id != 0:
        raise EngineError(f"input {name}: it is on GPU {view.device_id}, the engine is on GPU 0")
    shape = tuple(view.shape)
    if view.strides is not None and tuple(view.strides) != _contiguous_strides(shape):
        raise EngineError(f"input {name}: its memory is not contiguous in C order")
    return DeviceArray(int(view.ptr), shape, np.dtype(view.dtype), view)


def _contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))
