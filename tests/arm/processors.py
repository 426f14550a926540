"""The emulated Arm processors, and the system files that describe them.

Qemu 7.2 gives an emulated program the processor's registers and auxiliary vector, but the host's own
``/proc/cpuinfo`` and ``/sys``. ONNX Runtime for Arm crashes if it reads an x86's there, and OpenVINO if it
finds no topology of the cores, so that files as an Arm's Linux writes them stand in for both.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BASE = "fp asimd aes pmull sha1 sha2 crc32"
_V8_2 = f"{_BASE} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Processor:
    """A processor that qemu emulates.

    `midr` is its main identification register, `features` the instruction sets that Linux lists.
    """

    qemu_name: str
    midr: int
    features: str

    def write(self, folder: Path) -> None:
        """Write ``cpuinfo`` and ``cpu/`` for as many cores as this machine has."""
        cores = os.cpu_count() or 1
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpuinfo").write_text("".join(self._cpuinfo(core) for core in range(cores)))
        (folder / "cpu").mkdir(exist_ok=True)
        for name in ("possible", "present", "online"):
            (folder / "cpu" / name).write_text(f"0-{cores - 1}\n" if cores > 1 else "0\n")
        for core in range(cores):
            identification = folder / "cpu" / f"cpu{core}" / "regs" / "identification"
            identification.mkdir(parents=True, exist_ok=True)
            (identification / "midr_el1").write_text(f"{self.midr:#018x}\n")
            topology = folder / "cpu" / f"cpu{core}" / "topology"
            topology.mkdir(exist_ok=True)
            for name, value in _topology(core, cores).items():
                (topology / name).write_text(f"{value}\n")

    def _cpuinfo(self, core: int) -> str:
        return (
            f"processor\t: {core}\n"
            "BogoMIPS\t: 100.00\n"
            f"Features\t: {self.features}\n"
            f"CPU implementer\t: {self.midr >> 24:#04x}\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: {self.midr >> 20 & 0xF:#x}\n"
            f"CPU part\t: {self.midr >> 4 & 0xFFF:#05x}\n"
            f"CPU revision\t: {self.midr & 0xF}\n\n"
        )


def _topology(core: int, cores: int) -> dict[str, str]:
    """Return the topology of a core with one thread, in one package; sets of cores are masks."""
    itself, everyone = _mask(1 << core), _mask((1 << cores) - 1)
    return {
        "physical_package_id": "0",
        "core_id": str(core),
        "thread_siblings": itself,
        "thread_siblings_list": str(core),
        "core_siblings": everyone,
        "core_siblings_list": f"0-{cores - 1}" if cores > 1 else "0",
    }


def _mask(bits: int) -> str:
    """Write a set of cores as Linux does: in hexadecimal, eight digits between commas."""
    return f"{bits:x}" if bits < 1 << 32 else f"{_mask(bits >> 32)},{bits & 0xFFFFFFFF:08x}"


CORTEX_A76 = Processor("cortex-a76", 0x414FD0B1, _V8_2)
"""With the instruction sets of a Jetson Orin's Cortex-A78AE: FP16 and DotProd, no SVE, no I8MM."""
CORTEX_A72 = Processor("cortex-a72", 0x410FD083, f"{_BASE} cpuid")
"""Without DotProd, as a Raspberry Pi 4."""
PROCESSORS = (CORTEX_A76, CORTEX_A72)

AUXILIARY_BITS = {"fp": 0, "asimd": 1, "asimdhp": 10, "asimddp": 20, "sve": 22}
"""The bits of AT_HWCAP by which libraries choose kernels (Linux, ``asm/hwcap.h``)."""
