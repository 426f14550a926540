from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.benchmarking.scenarios.under_test import LOGITS_TOLERANCE, check_unchanged
from ccr_deploy.errors import EngineError

CODES = np.arange(12, dtype=np.uint8).reshape(4, 3)
LOGITS = np.array([[10.0, -2.0], [0.5, 3.0]], dtype=np.float32)


def test_equal_codes_and_rounded_logits_are_unchanged() -> None:
    check_unchanged(CODES, CODES.copy())
    check_unchanged(LOGITS, LOGITS + np.float32(0.5 * LOGITS_TOLERANCE * 10))


def test_one_flipped_bit_is_found() -> None:
    other = CODES.copy()
    other[1, 2] ^= 1
    with pytest.raises(EngineError, match="other outputs for 1 of 4 images than before the run: "):
        check_unchanged(CODES, other)


@pytest.mark.parametrize("wrong", [2 * LOGITS_TOLERANCE * 10, float("nan")])
def test_other_logits_are_found(wrong: float) -> None:
    other = LOGITS.copy()
    other[1, 0] += np.float32(wrong)
    with pytest.raises(EngineError, match="other outputs for 1 of 2 images"):
        check_unchanged(LOGITS, other)
