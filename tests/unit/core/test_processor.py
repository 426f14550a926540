"""CPU names and instruction sets from ``/proc/cpuinfo`` of x86 and Arm."""

from __future__ import annotations

from ccr_deploy.core.processor import (
    instruction_sets,
    parse_flags,
    parse_name,
    processor_device,
    processor_name,
)

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7B13
flags\t\t: fpu vme avx avx2 fma
bugs\t\t: sysret_ss_attrs

processor\t: 1
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd asimdhp asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b

processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd05
"""
JETSON = f"model name\t: ARMv8 Processor rev 1 (v8l)\n{ARM}"


def test_a_name_is_the_model_name_or_arm_implementer_and_part() -> None:
    assert parse_name(X86.splitlines()) == "AMD EPYC 7B13"
    assert parse_name(ARM.splitlines()) == "implementer 0x41 part 0xd0b"
    assert parse_name(JETSON.splitlines()) == "ARMv8 Processor rev 1 (v8l)"
    assert parse_name([]) is parse_name(["CPU implementer\t: 0x41"]) is None


def test_flags_are_those_of_the_first_processor() -> None:
    assert parse_flags(X86.splitlines()) == {"fpu", "vme", "avx", "avx2", "fma"}
    assert parse_flags(ARM.splitlines()) == {"fp", "asimd", "asimdhp", "asimddp"}
    assert parse_flags([]) == parse_flags(["cpu\t: POWER9"]) == frozenset()


def test_instruction_sets_have_their_usual_names() -> None:
    assert instruction_sets({"fpu", "avx2", "avx512f", "avx512_vnni"}) == ("AVX2", "AVX-512", "AVX512-VNNI")
    assert instruction_sets({"asimd", "asimddp", "i8mm"}) == ("DotProd", "I8MM")
    assert instruction_sets(()) == ()


def test_a_device_is_the_name_and_the_instruction_sets() -> None:
    assert processor_device().startswith(f"{processor_name()}, ")
