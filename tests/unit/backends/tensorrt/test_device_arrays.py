"""Arrays on a GPU that can be read in place."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.backends.tensorrt.device_arrays import checked_view, is_contiguous, is_device_array, view_of
from ccr_deploy.errors import EngineError


class LibraryError(Exception):
    """An error of an array's library, of a type that only the library knows."""


class WithoutInterface:
    """An array whose memory its library does not hand out."""

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        raise LibraryError("the memory was released")


class WithoutCapsule:
    """An array on a GPU that DLPack cannot export."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: object) -> object:
        raise LibraryError("no export of sparse arrays")


class WithoutDevice(WithoutCapsule):
    """An array that cannot tell its device."""

    def __dlpack_device__(self) -> tuple[int, int]:
        raise LibraryError("the device is gone")


class WithoutGradients(WithoutCapsule):
    """An array that cannot tell whether it requires gradients."""

    @property
    def requires_grad(self) -> bool:
        raise LibraryError("no graph")


class View:
    """The attributes of cuda-core's view, of two images on the first GPU."""

    device_id = 0
    ptr = 512
    shape = (2, 4, 4, 3)
    strides: tuple[int, ...] | None = None
    dtype: object = np.dtype("uint8")


class ViewWithoutType(View):
    """A view of a type that NumPy lacks."""

    @property
    def dtype(self) -> object:
        raise NotImplementedError("bfloat16 needs ml_dtypes")


class ViewOnSecondGpu(View):
    device_id = 1


class ViewOfColumns(View):
    strides = (48, 3, 12, 1)


@pytest.mark.parametrize(
    ("shape", "strides", "contiguous"),
    [
        ((4, 48, 48, 3), (6912, 144, 3, 1), True),
        ((4, 48, 48, 3), (6912, 3, 144, 1), False),
        ((4, 40, 48, 3), (6912, 144, 3, 1), False),
        ((1, 48, 48, 3), (13824, 144, 3, 1), True),
        ((1, 1, 1), (7, 7, 7), True),
        ((4, 48), (0, 1), False),
        ((), (), True),
    ],
)
def test_strides_of_c_order_are_contiguous(
    shape: tuple[int, ...], strides: tuple[int, ...], contiguous: bool
) -> None:
    assert is_contiguous(shape, strides) is contiguous


def test_arrays_on_the_host_are_not_device_arrays() -> None:
    import torch

    assert not is_device_array(np.zeros(3))
    assert not is_device_array(torch.zeros(3))
    assert not is_device_array([1, 2, 3])


@pytest.mark.parametrize("array", [WithoutInterface(), WithoutCapsule(), WithoutDevice(), WithoutGradients()])
def test_an_error_of_the_arrays_library_names_the_input(array: object) -> None:
    assert is_device_array(array)
    with pytest.raises(EngineError, match=r"^input image: its memory on the GPU cannot be used \(") as caught:
        view_of("image", array, 1)
    assert isinstance(caught.value.__cause__, LibraryError)


def test_an_array_that_requires_gradients_is_refused_with_the_remedy() -> None:
    """A tensor on a CPU raises as one on a GPU does."""
    import torch

    with pytest.raises(EngineError, match=r"input image: .* requires gradients: pass its detach"):
        view_of("image", torch.zeros((2, 4, 4, 3), requires_grad=True), 1)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (
            ViewWithoutType(),
            r"input image: its memory on the GPU cannot be used \(bfloat16 needs ml_dtypes\)",
        ),
        (ViewOnSecondGpu(), "input image: it is on GPU 1, the engine is on GPU 0"),
        (ViewOfColumns(), r"input image: \[2, 4, 4, 3\]: its memory is not contiguous"),
    ],
)
def test_an_unusable_view_is_refused(view: View, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        checked_view("image", view)


def test_a_usable_view_is_described_in_numpys_terms() -> None:
    array = checked_view("image", View())
    assert (array.pointer, array.shape, array.dtype) == (512, (2, 4, 4, 3), np.dtype("uint8"))
    assert (len(array), array.bytes_per_item) == (2, 48)
