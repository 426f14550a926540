"""Precisions that a processor does not support are refused."""

from __future__ import annotations

import pytest

from ccr_deploy.backends.openvino.cpu import OpenVinoBackend, check_capability
from ccr_deploy.errors import EngineError


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_supported_precision_is_accepted(precision: str) -> None:
    check_capability(precision, ["BF16", "FP32", "INT8", "WINOGRAD"], "a CPU")


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_an_unsupported_precision_is_refused_with_the_choices(precision: str) -> None:
    with pytest.raises(EngineError) as error:
        check_capability(precision, ["WINOGRAD", "FP32"], "an old CPU (x86_64)")
    assert str(error.value) == (
        f"OpenVINO does not support {precision.upper()} on an old CPU (x86_64): choose FP32"
    )


def test_fp32_is_always_supported_and_listed_first() -> None:
    backend = OpenVinoBackend()
    backend.check_precision("fp32")
    assert backend.native_precisions()[0] == "fp32"
