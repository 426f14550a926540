"""The CPU of this machine: its name and instruction sets, as Linux reports them."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "avx512_fp16": "AVX512-FP16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "amx_fp16": "AMX-FP16",
    "asimdhp": "FP16",
    "asimddp": "DotProd",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
    "sve2": "SVE2",
}
"""The CPU flags (x86 and Arm) that inference libraries select kernels by, and their usual names."""


def processor_name() -> str:
    """Return the CPU's model name and architecture."""
    name = parse_name(_cpuinfo()) or platform.processor() or "unknown CPU"
    return f"{name} ({platform.machine()})"


def processor_device() -> str:
    """Return the CPU's name and instruction sets: the device that a CPU engine is built for.

    The name alone is not enough: clouds show several generations as "Intel(R) Xeon(R) Processor".
    """
    found = " ".join(instruction_sets(processor_flags())) or "unknown instruction sets"
    return f"{processor_name()}, {found}"


def processor_flags() -> frozenset[str]:
    """Return this CPU's flags; empty if Linux does not report them."""
    return parse_flags(_cpuinfo())


def parse_name(cpuinfo: Collection[str]) -> str | None:
    """Read the first processor's name from the lines of ``/proc/cpuinfo``; None if there is none.

    Most Arm processors have no model name there, but the numbers of their implementer and part.
    """
    first: dict[str, str] = {}
    for line in cpuinfo:
        name, _, value = line.partition(":")
        first.setdefault(name.strip(), value.strip())
    if model := first.get("model name"):
        return model
    implementer, part = first.get("CPU implementer"), first.get("CPU part")
    return f"implementer {implementer} part {part}" if implementer and part else None


def parse_flags(cpuinfo: Collection[str]) -> frozenset[str]:
    """Read the first processor's flags from the lines of ``/proc/cpuinfo``, in the format of x86 or Arm."""
    for line in cpuinfo:
        name, _, values = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(values.split())
    return frozenset()


def instruction_sets(flags: Collection[str]) -> tuple[str, ...]:
    """Return the names of the instruction sets, among a processor's flags, that matter for inference."""
    return tuple(name for flag, name in _INSTRUCTION_SETS.items() if flag in flags)


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
