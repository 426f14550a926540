"""Arrays that are already on the GPU, of any library that supports DLPack or the CUDA array interface."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends.tensorrt.flavour import RTX, TENSORRT, extra_of
from ccr_deploy.errors import EngineError, MissingExtraError, pip_install

if TYPE_CHECKING:
    from collections.abc import Iterator

_DLPACK_CUDA = 2


@dataclass(frozen=True)
class DeviceArray:
    """An array in GPU memory: its address, shape and NumPy type."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object
    """The object that keeps the memory alive."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def bytes_per_item(self) -> int:
        """The distance between two items of the batch, in bytes."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize


def is_device_array(array: object) -> bool:
    """Return whether an array is on a GPU, by DLPack's device or by ``__cuda_array_interface__``.

    An array that raises an error instead of telling its device counts as one: `view_of` reports the error.
    """
    if isinstance(array, np.ndarray):
        return False
    try:
        device = getattr(array, "__dlpack_device__", None)
        if device is not None:
            return bool(device()[0] == _DLPACK_CUDA)
        return hasattr(array, "__cuda_array_interface__")
    except Exception:  # of the array's library, which may raise any
        return True


def view_of(name: str, array: object, stream: int) -> DeviceArray:
    """Return a view of an array on the GPU, without a copy.

    The view synchronizes `stream` with the array's own stream: work on `stream` starts after pending writes
    to the array.

    Args:
        name: the name of the input, for messages.
        array: the array.
        stream: the CUDA stream that reads it.

    Raises:
        EngineError: if the array cannot be viewed (for example because it requires gradients, or because its
            version of ``__cuda_array_interface__`` is below 3), is on another GPU, or is not contiguous.
        MissingExtraError: if cuda-core is not installed.
    """
    try:
        from cuda.core.utils import StridedMemoryView
    except ImportError:
        rtx = f" (with {RTX.title} {pip_install(extra_of(RTX))})"
        raise MissingExtraError("cuda-core", extra_of(TENSORRT), "reading arrays on the GPU", rtx) from None
    with _reading(name):
        requires_gradients = bool(getattr(array, "requires_grad", False))
    if requires_gradients:
        raise EngineError(
            f"input {name}: its memory on the GPU cannot be used, because it requires gradients: "
            "pass its detach()"
        )
    with _reading(name):
        view = StridedMemoryView.from_any_interface(array, stream_ptr=stream)
    return checked_view(name, view)


def checked_view(name: str, view: Any) -> DeviceArray:  # noqa: ANN401 -- cuda-core has no types
    """Return cuda-core's view of an array as a `DeviceArray`.

    Raises:
        EngineError: if the array is on another GPU or not contiguous, or has a type that NumPy lacks.
    """
    with _reading(name):
        device, shape, strides = int(view.device_id), tuple(view.shape), view.strides
        dtype = np.dtype(view.dtype or np.void)
    if device != 0:
        raise EngineError(f"input {name}: it is on GPU {device}, the engine is on GPU 0")
    if strides is not None and not is_contiguous(shape, tuple(strides)):
        raise EngineError(f"input {name}: {list(shape)}: its memory is not contiguous in C order")
    return DeviceArray(int(view.ptr), shape, dtype, view)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Convert the errors of an array's library, which may be of any type, to an EngineError."""
    try:
        yield
    except Exception as error:
        raise EngineError(f"input {name}: its memory on the GPU cannot be used ({error})") from error


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Return whether strides, in elements, are those of C order, ignoring dimensions of size 1."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
