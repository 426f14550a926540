"""Measure one limit of this machine: the rate of a matrix product, or the memory bandwidth.

Each measurement runs in a process of its own (`ccr_deploy.benchmarking.machine_limits`), for about a second;
the shortest of its runs counts.

- A product of two matrices with n rows and n columns has n³ multiply-accumulates.
- The bandwidth is that of the kernel Copy of STREAM, ``c = a``, which counts the bytes read and those
  written: two arrays. What a write may read first is not counted (J. D. McCalpin: "Memory Bandwidth and
  Machine Balance in Current High Performance Computers", IEEE TCCA Newsletter, December 1995). As STREAM
  demands, an array has at least four times the size of all last-level caches, up to a limit.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.environment import usable_cores
from ccr_deploy.benchmarking.roofline_results import MatrixRate, MemoryBandwidth
from ccr_deploy.core.control_groups import memory_limit_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ccr_deploy.core.precisions import EnginePrecision

SECONDS = 0.4
"""How long a product of one size runs again and again, and half as long as a copy does."""
CPU_SIZES = (512, 1024, 2048)
GPU_SIZES = (4096, 8192)
GPU_COPY_BYTES = 2**30
"""Larger than the caches of any GPU."""
_ARRAY_BYTES = (2**26, 2**30)
"""Limits for an array of a copy on a CPU: at least 64 MiB, at most 1 GiB."""
_PROCESSORS = Path("sys/devices/system/cpu")


def numpy_rate(threads: int) -> MatrixRate:
    """Measure NumPy's product in FP32; its BLAS reads the number of threads from the environment."""

    def product(size: int) -> Callable[[], float]:
        first, second = (np.full((size, size), value, np.float32) for value in (0.5, 2.0))
        result = np.empty_like(first)
        return timed(lambda: np.matmul(first, second, out=result))

    return _rate("fp32", product, CPU_SIZES, f"NumPy {np.__version__}, {_threads(threads)}")


def openvino_rate(precision: EnginePrecision, threads: int) -> MatrixRate:
    """Measure OpenVINO's product.

    Raises:
        MissingExtraError: if OpenVINO is not installed.
        EngineError: if OpenVINO does not support the precision on this processor.
    """
    from ccr_deploy.backends.openvino.cpu import import_openvino
    from ccr_deploy.backends.openvino.matrix_product import openvino_product

    version = import_openvino().__version__.partition("-")[0]
    return _rate(
        precision,
        lambda size: timed(openvino_product(precision, threads, size)),
        CPU_SIZES,
        f"OpenVINO {version}, {_threads(threads)}",
    )


def gpu_rate(precision: EnginePrecision, *, tf32: bool) -> MatrixRate:
    """Measure PyTorch's product on the GPU.

    Args:
        precision: the precision.
        tf32: whether FP32 products may be computed in TF32.

    Raises:
        EngineError: if PyTorch has no such product, or finds no GPU.
    """
    from ccr_deploy.backends.pytorch.gpu_limits import gpu_library, gpu_product

    kind = f"{gpu_library()}{', TF32' if tf32 and precision == 'fp32' else ''}"
    return _rate(precision, lambda size: gpu_product(precision, size, tf32=tf32), GPU_SIZES, kind)


def cpu_bandwidth(threads: int) -> MemoryBandwidth:
    """Measure a copy by several threads, each of its own part of the arrays."""
    size = array_bytes(last_level_cache_bytes(usable_cores()), memory_limit_bytes())
    # Both are written, since memory that was never written is not there yet.
    source, result = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    parts = list(zip(np.array_split(source, threads), np.array_split(result, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))  # NumPy releases the GIL

        seconds = best_seconds(timed(copy), 2 * SECONDS)
    return _bandwidth(size, seconds, _threads(threads))


def gpu_bandwidth() -> MemoryBandwidth:
    """Measure a copy from the GPU's memory to the GPU's memory.

    Raises:
        EngineError: if PyTorch finds no GPU.
    """
    from ccr_deploy.backends.pytorch.gpu_limits import gpu_copy, gpu_library

    seconds = best_seconds(gpu_copy(GPU_COPY_BYTES), 2 * SECONDS)
    return _bandwidth(GPU_COPY_BYTES, seconds, gpu_library())


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs another one and returns the seconds."""

    def seconds() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return seconds


def best_seconds(measure: Callable[[], float], seconds: float) -> float:
    """Return the shortest of several measurements, after one that does not count.

    Args:
        measure: returns the seconds of one run.
        seconds: how long to measure again; at least once.
    """
    measure()
    end = time.monotonic() + seconds
    best = measure()
    while time.monotonic() < end:
        best = min(best, measure())
    return best


def array_bytes(cache_bytes: int | None, limit: int | None) -> int:
    """Return the size of an array of the copy.

    Args:
        cache_bytes: the size of all last-level caches; None if it is not known.
        limit: the container's memory limit in bytes, of which an array takes an eighth at most; None if there
            is none.
    """
    least, most = _ARRAY_BYTES
    wanted = min(max(least, 4 * (cache_bytes or 0)), most)
    return min(wanted, limit // 8) if limit else wanted


def last_level_cache_bytes(cores: Iterable[int], root: Path = Path("/")) -> int | None:
    """Return the size of the last-level caches of some processors; None if Linux does not report it.

    Processors may share a cache, which counts once, or have several: an EPYC has one for each 8 cores.

    Args:
        cores: numbers of the processors.
        root: the folder that contains ``sys``.
    """
    found: dict[str, int] = {}
    for core in cores:
        caches = (root / _PROCESSORS / f"cpu{core}" / "cache").glob("index*")
        known = [(size, folder) for folder in caches if (size := _kibibytes(folder / "size"))]
        if known:
            size, folder = max(known)
            found[_text(folder / "shared_cpu_list") or str(core)] = 1024 * size
    return sum(found.values()) or None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _kibibytes(file: Path) -> int | None:
    text = _text(file)
    return int(text[:-1]) if text.endswith("K") and text[:-1].isdigit() else None


def _rate(
    precision: EnginePrecision,
    product: Callable[[int], Callable[[], float]],
    sizes: Iterable[int],
    library: str,
) -> MatrixRate:
    """Return the highest rate of products of several sizes; a slow machine runs only the small ones."""
    rates: dict[int, float] = {}
    expected = 0.0
    for size in sizes:
        if expected > SECONDS:
            break
        seconds = best_seconds(product(size), SECONDS)
        rates[size] = size**3 / seconds / 1e9
        expected = 8 * seconds  # the next size is twice as large
    best = max(rates, key=lambda size: rates[size])
    return MatrixRate(
        precision=precision,
        gmac_per_second=round(rates[best], 2),
        measured_by=f"product of {best}x{best} matrices, {library}",
    )


def _bandwidth(size: int, seconds: float, by: str) -> MemoryBandwidth:
    return MemoryBandwidth(
        gigabytes_per_second=round(2 * size / seconds / 1e9, 2),
        measured_by=f"copy of {size / 2**20:.0f} MiB, {by}",
    )


def _threads(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"
