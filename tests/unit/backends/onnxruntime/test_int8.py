"""The defects of INT8 by version of ONNX Runtime."""

from __future__ import annotations

import pytest

from ccr_deploy.backends.onnxruntime.int8 import broken_optimizers, truncates_fp16


@pytest.mark.parametrize(
    ("version", "truncates"),
    [
        ("1.20.0", True),
        ("1.24.4", True),
        ("1.29.0", True),
        ("1.30.0", False),
        ("1.31.1", False),
        ("2.0", False),
    ],
)
def test_onnxruntime_rounds_fp16_since_1_30(version: str, truncates: bool) -> None:
    assert truncates_fp16(version) is truncates


@pytest.mark.parametrize("version", ["1.20.0", "1.24.4", "1.25.0", "1.30.0", "1.32.0", "2.0"])
def test_bias_quantization_is_disabled_in_every_version(version: str) -> None:
    assert "WeightBiasQuantization" in broken_optimizers(version)


@pytest.mark.parametrize(
    ("version", "is_disabled"),
    [("1.20.0", False), ("1.24.4", False), ("1.25.0", True), ("1.32.0", True), ("2.0", True)],
)
def test_the_unsigned_transformation_is_disabled_since_1_25(version: str, is_disabled: bool) -> None:
    assert ("QDQS8ToU8Transformer" in broken_optimizers(version)) is is_disabled
