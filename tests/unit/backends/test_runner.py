"""What is checked of the inputs of a runner."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.backends.runner import TensorSpec, check_feeds
from ccr_deploy.errors import EngineError

IMAGE = TensorSpec("image", "uint8", (None, 4, 4, 3))


class WithoutType:
    """An array whose type cannot be read."""

    shape = (2, 4, 4, 3)

    @property
    def dtype(self) -> object:
        raise NotImplementedError("no type in NumPy")


@pytest.mark.parametrize(
    ("array", "found"),
    [
        ([[1, 2], [3, 4]], "found list \\("),
        (WithoutType(), r"found WithoutType \(no type in NumPy\)"),
        (np.zeros((2, 4, 4, 3), np.float32), r"found float32 \[2, 4, 4, 3\]"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"found uint8 \[0, 4, 4, 3\]"),
        (np.zeros((4, 4, 3), np.uint8), r"found uint8 \[4, 4, 3\]"),
        (np.uint8(1), r"found uint8 \[\]"),
    ],
)
def test_a_wrong_input_is_refused_with_what_was_expected(array: object, found: str) -> None:
    with pytest.raises(EngineError, match=r"input image: expected uint8 \[N, 4, 4, 3\], " + found):
        check_feeds({"image": array}, (IMAGE,))


def test_a_tensor_that_requires_gradients_is_refused() -> None:
    import torch

    with pytest.raises(EngineError, match=r"found torch.float32 \[2, 4, 4, 3\]"):
        check_feeds({"image": torch.zeros((2, 4, 4, 3), requires_grad=True)}, (IMAGE,))


def test_a_matching_input_is_accepted() -> None:
    check_feeds({"image": np.zeros((2, 4, 4, 3), np.uint8)}, (IMAGE,))
