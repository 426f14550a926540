"""How many bits of an INT8 weight a CPU multiplies exactly.

Processors with VNNI, AMX or Arm's instructions add INT8 products in 32 bits. An x86 processor without them
(AVX2 alone: AMD before Zen 4, Intel before Cascade Lake; AVX-512 alone: Skylake-X) first adds two products of
an unsigned activation and a signed weight in 16 bits, and that sum saturates: 2 * 255 * 127 = 64,770 is more
than 32,767. With weights of 7 bits it cannot: 2 * 255 * 63 = 32,130. ONNX Runtime calls that
``reduce_range``, NNCF the overflow fix.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ccr_deploy.core.processor import processor_flags

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"
"""oneDNN's environment variable, by which a user forbids it instruction sets that the processor has."""

_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
_SUMS_IN_32_BITS = ("avx_vnni", "avx512_vnni", "amx_int8")
_LEFT_BY_MAX_ISA = {
    **dict.fromkeys(("SSE41", "AVX", "AVX2", "AVX512_CORE"), frozenset[str]()),
    **dict.fromkeys(("AVX2_VNNI", "AVX2_VNNI_2"), frozenset({"avx_vnni"})),
    **dict.fromkeys(
        ("AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_FP16"), frozenset({"avx_vnni", "avx512_vnni"})
    ),
}
"""Which of the flags above oneDNN still uses under a maximum; under one that is not listed, all of them."""


@dataclass(frozen=True)
class Int8Weights:
    """The bits that INT8 weights may have on a CPU, and why."""

    bits: Literal[7, 8]
    reason: str

    def __str__(self) -> str:
        return f"INT8 with {self.bits}-bit weights: {self.reason}"


def int8_weights(architecture: str, flags: Collection[str], max_isa: str | None = None) -> Int8Weights:
    """Tell how many bits INT8 weights may have.

    Args:
        architecture: the machine's, as `platform.machine` gives it.
        flags: the processor's, as Linux lists them; empty if they are not known.
        max_isa: the value of ``ONEDNN_MAX_CPU_ISA`` for a library that obeys it; None or empty if it is not
            set.

    Returns:
        8 bits unless the processor is an x86 without VNNI and AMX, or with unknown flags.
    """
    if architecture.lower() not in _X86:
        return Int8Weights(8, f"{architecture} adds INT8 products in 32 bits")
    if not flags:
        return Int8Weights(7, "this CPU's flags are not known, so that it may lack VNNI")
    found = [flag for flag in _SUMS_IN_32_BITS if flag in flags]
    if not found:
        return Int8Weights(7, "this CPU has no VNNI")
    left = _LEFT_BY_MAX_ISA.get((max_isa or "").upper())
    usable = [flag for flag in found if left is None or flag in left]
    if not usable:
        return Int8Weights(7, f"{MAX_ISA_VARIABLE}={max_isa} forbids this CPU's VNNI")
    return Int8Weights(8, f"this CPU has {', '.join(usable)}")


def int8_weights_here(max_isa: str | None = None) -> Int8Weights:
    """Tell how many bits INT8 weights may have on this machine's CPU; `max_isa` is as in `int8_weights`."""
    return int8_weights(platform.machine(), processor_flags(), max_isa)
