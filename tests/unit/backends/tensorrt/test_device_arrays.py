"""Arrays on a GPU that can be read in place."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.backends.tensorrt.device_arrays import is_contiguous, is_device_array


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
