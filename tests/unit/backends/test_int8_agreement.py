"""The check that an INT8 engine agrees with its graph."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ccr_deploy.backends.int8_agreement import is_code_of, relative_deviation


def test_a_deviation_is_relative_to_all_values() -> None:
    expected = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    assert relative_deviation(expected, expected) == 0
    assert relative_deviation(expected + np.float32([0.5, 0]), expected) == pytest.approx(math.sqrt(0.5) / 5)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_deviation_of_nan_or_infinity_exceeds_every_limit(broken: float) -> None:
    found = relative_deviation(np.array([1, broken]), np.array([1.0, 2.0]))
    assert not found <= 1e9


def test_a_code_is_compared_with_activations_except_those_near_zero() -> None:
    activations = np.array([[[[1, -1, 1e-6, -1e-6]], [[-0.0, 2, -2, 3]]]], dtype=np.float32)
    bits = np.array([1, 0, 1, 0, 1, 1, 0, 1])

    def agrees(changed: int | None) -> bool:
        flipped = bits.copy()
        if changed is not None:
            flipped[changed] ^= 1
        return is_code_of(np.packbits(flipped)[None], activations, 1e-3)

    assert agrees(None)
    assert [agrees(index) for index in range(8)] == [False, False, True, True, True, False, False, False]
