"""The number of bits of INT8 weights by the flags of the processor."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.backends.int8_weights import int8_weights

AVX2 = {"sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2"}
AVX512 = {*AVX2, "avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}
PROCESSORS = {
    "Nehalem": ({"sse4_1", "sse4_2"}, 7),
    "Haswell, Zen 1 to 3": (AVX2, 7),
    "Skylake-X": (AVX512, 7),
    "Cascade Lake, Ice Lake, Zen 4": ({*AVX512, "avx512_vnni"}, 8),
    "Alder Lake": ({*AVX2, "avx_vnni"}, 8),
    "Sapphire Rapids": ({*AVX512, "avx512_vnni", "avx_vnni", "amx_bf16", "amx_tile", "amx_int8"}, 8),
    "a hypervisor that shows AMX alone": ({*AVX512, "amx_tile", "amx_int8"}, 8),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("architecture", ["x86_64", "AMD64"])
def test_x86_needs_vnni_or_amx_for_8_bits(name: str, architecture: str) -> None:
    flags, bits = PROCESSORS[name]
    assert int8_weights(architecture, flags).bits == bits


@pytest.mark.parametrize(
    "flags", [{"fp", "asimd"}, {"fp", "asimd", "asimdhp", "asimddp"}, {"asimd", "asimddp", "sve", "i8mm"}]
)
def test_arm_uses_8_bits(flags: set[str]) -> None:
    """Cortex-A72, Neoverse N1 and Orin's A78AE, Graviton 3."""
    assert int8_weights("aarch64", flags).bits == 8


def test_an_x86_with_unknown_flags_uses_7_bits() -> None:
    found = int8_weights("x86_64", ())
    assert (found.bits, found.reason) == (7, "this CPU's flags are not known, and it may have no VNNI")


CASCADE_LAKE, SAPPHIRE_RAPIDS = (
    PROCESSORS[name][0] for name in ("Cascade Lake, Ice Lake, Zen 4", "Sapphire Rapids")
)


@pytest.mark.parametrize(
    ("max_isa", "cascade_lake", "sapphire_rapids"),
    [
        (None, 8, 8), ("", 8, 8), ("ALL", 8, 8), ("DEFAULT", 8, 8), ("AVX512_CORE_AMX", 8, 8),
        ("SSE41", 7, 7), ("AVX", 7, 7), ("AVX2", 7, 7), ("avx2", 7, 7), ("AVX512_CORE", 7, 7),
        ("AVX2_VNNI", 7, 8), ("AVX512_CORE_VNNI", 8, 8), ("AVX512_CORE_BF16", 8, 8),
    ],
)  # fmt: skip
def test_onednn_max_cpu_isa_is_respected(
    max_isa: str | None, cascade_lake: int, sapphire_rapids: int
) -> None:
    assert int8_weights("x86_64", CASCADE_LAKE, max_isa).bits == cascade_lake
    assert int8_weights("x86_64", SAPPHIRE_RAPIDS, max_isa).bits == sapphire_rapids


def test_the_text_has_bits_and_reason() -> None:
    assert str(int8_weights("x86_64", AVX2)) == "INT8 with 7-bit weights: this CPU has no VNNI"
    assert str(int8_weights("x86_64", CASCADE_LAKE)) == "INT8 with 8-bit weights: this CPU has avx512_vnni"
    assert str(int8_weights("x86_64", CASCADE_LAKE, "AVX2")) == (
        "INT8 with 7-bit weights: ONEDNN_MAX_CPU_ISA=AVX2 forbids this CPU's VNNI"
    )


def test_sums_of_7_bit_weights_fit_into_16_bits_and_sums_of_8_bit_weights_do_not() -> None:
    largest = np.iinfo(np.int16).max
    assert 2 * 255 * 63 <= largest < 2 * 255 * 127
