"""The NVIDIA driver of this machine, and the extras that it supports.

Works without any NVIDIA package installed: its result is the advice which extra to install.
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
"""What wheels for CUDA 13 and 12 need: the CUDA version that the driver supports, and its first release.

From the release notes of the CUDA toolkit.
"""


@dataclass(frozen=True)
class GpuDriver:
    """An NVIDIA driver: its version (``"580.65.06"``) and the newest CUDA that it supports (``(13, 0)``).

    Either is None if it is unknown. `is_jetson` is true on a Jetson, where JetPack provides driver, CUDA and
    TensorRT together.
    """

    version: str | None
    cuda: tuple[int, int] | None
    is_jetson: bool = False

    def __str__(self) -> str:
        cuda = self.cuda and f"CUDA {self.cuda[0]}.{self.cuda[1]}"
        if self.version and cuda:
            return f"{self.version} ({cuda})"
        return self.version or cuda or "of unknown version"

    def supports(self, wheels: tuple[tuple[int, int], int]) -> bool:
        """Return whether the driver runs wheels for a CUDA version, `CUDA_13` or `CUDA_12`."""
        cuda, version = wheels
        if self.cuda:  # a compatibility package supports a newer CUDA than the driver's version implies
            return self.cuda >= cuda
        return version_numbers(self.version or "")[:1] >= (version,)


@dataclass(frozen=True)
class GpuExtras:
    """The extras for TensorRT and ONNX Runtime's CUDA provider, each None if none fits, and the reason."""

    tensorrt: str | None
    onnxruntime: str | None
    reason: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the extras that fit."""
        return tuple(name for name in (self.tensorrt, self.onnxruntime) if name)

    @property
    def advice(self) -> str:
        """The command that installs the extras, or the reason why none fits."""
        return pip_install(*self.names) if self.names else self.reason


def gpu_extras(driver: GpuDriver, python: tuple[int, int], machine: str) -> GpuExtras:
    """Choose the extras that fit a machine.

    Args:
        driver: its NVIDIA driver.
        python: Python's version, such as ``(3, 12)``: ONNX Runtime for CUDA 13 needs 3.11.
        machine: the processor's architecture, ``"x86_64"`` or ``"aarch64"``; ONNX Runtime has no wheels for
            CUDA 12 on aarch64.
    """
    if driver.is_jetson:
        return GpuExtras("tensorrt-system", None, "a Jetson: JetPack provides TensorRT")
    cuda12 = None if machine == "aarch64" else "cuda12"
    if driver.supports(CUDA_13):
        onnxruntime = "cuda" if python >= (3, 11) else cuda12
        return GpuExtras("tensorrt", onnxruntime, f"the driver {driver} supports CUDA 13")
    if driver.supports(CUDA_12):
        reason = f"the driver {driver} supports CUDA 12; CUDA 13 needs driver {CUDA_13[1]} or later"
        return GpuExtras("tensorrt-cu12", cuda12, reason)
    return GpuExtras(None, None, f"the driver {driver} is older than {CUDA_12[1]}: update it")


@cache
def find_driver() -> GpuDriver | None:
    """Return this machine's driver; None if it has none."""
    return read_driver(Path("/"), _supported_cuda())


def read_driver(root: Path, cuda: tuple[int, int] | None) -> GpuDriver | None:
    """Read the driver's version from the file system that begins at `root`; None if there is no driver.

    `cuda` is the newest CUDA version that the driver's library supports; None if there is no library.
    """
    version = _text(root / "sys/module/nvidia/version")  # exists while the kernel module is loaded
    # Containers on a Jetson often lack the first file, which belongs to the host's system.
    is_jetson = (root / "etc/nv_tegra_release").exists() or "Jetson" in _text(root / "proc/device-tree/model")
    return GpuDriver(version or None, cuda, is_jetson) if version or cuda or is_jetson else None


def extras_here() -> GpuExtras:
    """Return the extras that fit this machine; without a driver, those for the newest one."""
    driver = find_driver() or GpuDriver(None, CUDA_13[0])
    return gpu_extras(driver, sys.version_info[:2], platform.machine())


def _supported_cuda() -> tuple[int, int] | None:
    """Return the newest CUDA version that the driver's library supports; does not initialise the GPU."""
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
        return path.read_text(encoding="utf-8").strip(" \n\0")  # strings of the device tree end with NUL
    except OSError:
        return ""
