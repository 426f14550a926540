"""Read from the name of a TensorRT kernel (its tactic) the data types in which it computes.

Names of implicit matrix products state the types of input and output, then those of weights and accumulator:
``sm80_xmma_fprop_implicit_gemm_interleaved_i8f16_i8i32_f32_…`` reads INT8 and writes FP16. Older families of
kernels name the instruction (``h16816``, ``imma``) or the type (``int8x4``, ``scudnn``). The names are not
documented; those of kernels that a compiler generated (``__myl_…``) tell nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ccr_deploy.backends.kernels import ElementType

_TYPE = "i8|u8|i32|bf16|f16|tf32|f32|f64|e4m3|e5m2"
_OPERANDS = re.compile(
    rf"_(?P<input>{_TYPE})(?:{_TYPE})_(?P<weights>{_TYPE})(?:{_TYPE})(?:_|$)", re.IGNORECASE
)
_NAMES: dict[str, ElementType] = {
    "i8": "int8",
    "u8": "uint8",
    "i32": "int32",
    "bf16": "bf16",
    "f16": "fp16",
    "tf32": "fp32",  # the multiplier's type: values in memory are FP32
    "f32": "fp32",
    "f64": "fp64",
    "e4m3": "fp8",
    "e5m2": "fp8",
}
_FAMILIES: tuple[tuple[re.Pattern[str], ElementType], ...] = (
    # INT8 before the others: fp32_icudnn_int8x4 is the INT8 kernel with FP32 output.
    (re.compile(r"int8|imma|i8816|i16832|(^|_)s8(_|$)"), "int8"),
    (re.compile(r"bf16"), "bf16"),
    (re.compile(r"hmma|h884|h1688|h16816|fp16|hcudnn|hgemm|(^|_)f16(f16|f32)*(_|$)"), "fp16"),
    (re.compile(r"scudnn|sgemm|ffma|fp32|tf32|(^|_)f32(_|$)"), "fp32"),
)
_GENERATED = "__my"


class Operands(NamedTuple):
    """The data types that a kernel reads; "unknown" if its name does not tell."""

    input: ElementType
    weights: ElementType


def operands_of(tactic: str) -> Operands:
    """Return the data types of the input and the weights of a convolution or matrix product, by its name."""
    if tactic.startswith(_GENERATED):
        return Operands("unknown", "unknown")
    if found := _OPERANDS.search(tactic):
        return Operands(_NAMES[found["input"].lower()], _NAMES[found["weights"].lower()])
    lower = tactic.lower()
    family: ElementType = next((kind for pattern, kind in _FAMILIES if pattern.search(lower)), "unknown")
    return Operands(family, family)
