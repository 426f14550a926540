"""The number of bits that INT8 weights may have on a CPU without saturating sums.

Processors with VNNI, AMX or Arm's instructions add INT8 products in 32 bits. An x86 processor without them
(only AVX2: AMD before Zen 4, Intel before Cascade Lake; only AVX-512: Skylake-X) first adds two products of
an unsigned activation and a signed weight in 16 bits, and that sum can saturate: 2 * 255 * 127 = 64,770 is
more than 32,767. With 7-bit weights it cannot: 2 * 255 * 63 = 32,130. ONNX Runtime calls this
``reduce_range``, NNCF calls it the overflow fix.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ccr_deploy.core.processor import processor_flags

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"
"""oneDNN's environment variable that forbids instruction sets that the processor has."""

_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
_SUMS_IN_32_BITS = ("avx_vnni", "avx512_vnni", "amx_int8")
_LEFT_BY_MAX_ISA = {
    **dict.fromkeys(("SSE41", "AVX", "AVX2", "AVX512_CORE"), frozenset[str]()),
    **dict.fromkeys(("AVX2_VNNI", "AVX2_VNNI_2"), frozenset({"avx_vnni"})),
    **dict.fromkeys(
        ("AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_FP16"), frozenset({"avx_vnni", "avx512_vnni"})
    ),
}
"""The flags above that oneDNN still uses, by the value of the variable; all of them if it is not listed."""


@dataclass(frozen=True)
class Int8Weights:
    """The number of bits that INT8 weights may have on a CPU, and the reason."""

    bits: Literal[7, 8]
    reason: str

    def __str__(self) -> str:
        return f"INT8 with {self.bits}-bit weights: {self.reason}"


def int8_weights(architecture: str, flags: Collection[str], max_isa: str | None = None) -> Int8Weights:
    """Return the number of bits that INT8 weights may have.

    Args:
        architecture: the machine's architecture, as returned by `platform.machine`.
        flags: the processor's flags, as Linux lists them; empty if they are not known.
        max_isa: the value of ``ONEDNN_MAX_CPU_ISA`` for a library that reads it; None or empty if it is not
            set.

    Returns:
        7 bits for an x86 processor without VNNI and AMX, or with unknown flags; otherwise 8 bits.
    """
    if architecture.lower() not in _X86:
        return Int8Weights(8, f"{architecture} adds INT8 products in 32 bits")
    if not flags:
        # 7 bits are correct on every processor, and a little less accurate.
        return Int8Weights(7, "this CPU's flags are not known, and it may have no VNNI")
    found = [flag for flag in _SUMS_IN_32_BITS if flag in flags]
    if not found:
        return Int8Weights(7, "this CPU has no VNNI")
    left = _LEFT_BY_MAX_ISA.get((max_isa or "").upper())
    usable = [flag for flag in found if left is None or flag in left]
    if not usable:
        return Int8Weights(7, f"{MAX_ISA_VARIABLE}={max_isa} forbids this CPU's VNNI")
    return Int8Weights(8, f"this CPU has {', '.join(usable)}")


def int8_weights_here(max_isa: str | None = None) -> Int8Weights:
    """Return the number of bits that INT8 weights may have on this CPU; see `int8_weights` for `max_isa`."""
    return int8_weights(platform.machine(), processor_flags(), max_isa)
