"""Precisions that a processor does not support are refused."""

from __future__ import annotations

import pytest

from ccr_deploy.backends.openvino.cpu import OpenVinoBackend, check_capability, usable_capabilities
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


@pytest.mark.parametrize(
    ("max_isa", "left"),
    [
        (None, ["FP32", "BF16", "FP16", "INT8"]),
        ("", ["FP32", "BF16", "FP16", "INT8"]),
        ("AVX512_CORE_AMX", ["FP32", "BF16", "FP16", "INT8"]),
        ("avx512_core_bf16", ["FP32", "BF16", "INT8"]),
        ("AVX512_CORE_VNNI", ["FP32", "INT8"]),
        ("AVX2_VNNI_2", ["FP32", "INT8"]),
        ("AVX2", ["FP32", "INT8"]),
    ],
)
def test_forbidden_instructions_are_no_capability(max_isa: str | None, left: list[str]) -> None:
    assert usable_capabilities(["FP32", "BF16", "FP16", "INT8"], max_isa) == left
