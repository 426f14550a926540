"""The NVIDIA driver of this machine, and which extras with NVIDIA's libraries it takes.

Nothing of NVIDIA's needs to be installed for that: it is what tells a user what to install.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ccr_deploy.core.versions import version_numbers
from ccr_deploy.errors import pip_install

CUDA_13 = (13, 0), 580
CUDA_12 = (12, 2), 535
"""What the wheels for a CUDA need: a driver that serves this CUDA, which is the driver of this version."""


@dataclass(frozen=True)
class GpuDriver:
    """A driver: its version (``"580.65.06"``) and the newest CUDA that it serves (``(13, 0)``), where known.

    `is_jetson` tells that the machine is a Jetson, whose JetPack brings driver, CUDA and TensorRT together.
    """

    version: str | None
    cuda: tuple[int, int] | None
    is_jetson: bool = False

    def __str__(self) -> str:
        cuda = self.cuda and f"CUDA {self.cuda[0]}.{self.cuda[1]}"
        if self.version and cuda:
            return f"{self.version} ({cuda})"
        return self.version or cuda or "of unknown version"

    def serves(self, wheels: tuple[tuple[int, int], int]) -> bool:
        """Whether wheels for a CUDA run, `CUDA_13` or `CUDA_12`."""
        cuda, version = wheels
        if self.cuda:  # a compatibility package serves a newer CUDA than the driver's version tells
            return self.cuda >= cuda
        return version_numbers(self.version or "")[:1] >= (version,)


@dataclass(frozen=True)
class GpuExtras:
    """The extras that bring TensorRT and ONNX Runtime's CUDA provider, None if none fits, and why these."""

    tensorrt: str | None
    onnxruntime: str | None
    reason: str

    @property
    def names(self) -> tuple[str, ...]:
        """Those that fit."""
        return tuple(name for name in (self.tensorrt, self.onnxruntime) if name)

    @property
    def advice(self) -> str:
        """What to do to use the GPU: ``"pip install 'ccr-deploy[tensorrt]' or 'ccr-deploy[cuda]'"``."""
        return pip_install(*self.names) if self.names else self.reason


def gpu_extras(driver: GpuDriver, python: tuple[int, int], machine: str) -> GpuExtras:
    """Return the extras that a machine takes.

    Args:
        driver: its NVIDIA driver.
        python: Python's version, ``(3, 12)``: ONNX Runtime for CUDA 13 needs 3.11.
        machine: the processor's architecture, ``"x86_64"`` or ``"aarch64"``, for which ONNX Runtime has no
            wheels for CUDA 12.
    """
    if driver.is_jetson:
        return GpuExtras("tensorrt-system", None, "a Jetson: its JetPack brings TensorRT")
    cuda12 = None if machine == "aarch64" else "cuda12"
    if driver.serves(CUDA_13):
        onnxruntime = "cuda" if python >= (3, 11) else cuda12
        return GpuExtras("tensorrt", onnxruntime, f"the driver {driver} takes wheels for CUDA 13")
    if driver.serves(CUDA_12):
        update = f"those for CUDA 13 need driver {CUDA_13[1]} or later"
        return GpuExtras("tensorrt-cu12", cuda12, f"the driver {driver} takes wheels for CUDA 12; {update}")
    return GpuExtras(None, None, f"the driver {driver} is older than {CUDA_12[1]}: update it")


@cache
def find_driver() -> GpuDriver | None:
    """Return this machine's driver, None if it has none."""
    return read_driver(Path("/"), _served_cuda())


def read_driver(root: Path, cuda: tuple[int, int] | None) -> GpuDriver | None:
    """Return the driver of the machine whose file system begins at `root`, None if it has none.

    `cuda` is the newest CUDA that the driver's library serves, None if there is no library.
    """
    version = _text(root / "sys/module/nvidia/version")
    is_jetson = (root / "etc/nv_tegra_release").exists() or "Jetson" in _text(root / "proc/device-tree/model")
    return GpuDriver(version or None, cuda, is_jetson) if version or cuda or is_jetson else None


def extras_here() -> GpuExtras:
    """Return the extras that this machine takes; without a driver, those that the newest would take."""
    driver = find_driver() or GpuDriver(None, CUDA_13[0])
    return gpu_extras(driver, sys.version_info[:2], platform.machine())


def _served_cuda() -> tuple[int, int] | None:
    """Return the newest CUDA that the driver's own library serves; asking starts nothing on a GPU."""
    number = ctypes.c_int()
    try:
        status = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    if status or not number.value:
        return None
    return number.value // 1000, number.value % 1000 // 10  # 13020 is 13.2


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip(" \n\0")
    except OSError:
        return ""
