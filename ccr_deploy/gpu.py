"""This machine's GPU, as CUDA describes it: the first that ``CUDA_VISIBLE_DEVICES`` lets it see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ccr_deploy.errors import EngineError, MissingExtraError

_DRIVER_VERSION = Path("/sys/module/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, compute capability (``"9.0"``) and memory, and its driver's version."""

    name: str
    compute_capability: str
    memory_mib: int
    driver: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


def cuda_runtime() -> Any:  # noqa: ANN401 -- the library has no types
    """CUDA's runtime calls.

    Raises:
        MissingExtraError: cuda-python is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise MissingExtraError("cuda-python", "rtx", "using a GPU") from None
    return runtime


@cache
def find_gpu() -> Gpu:
    """This machine's GPU.

    Raises:
        EngineError: there is none, or its driver does not answer.
        MissingExtraError: cuda-python is not installed, without which nobody looks for one.
    """
    runtime = cuda_runtime()
    _, driver_version = runtime.cudaDriverGetVersion()
    if not driver_version:
        raise EngineError("there is no GPU here: no NVIDIA driver is installed")
    status, count = runtime.cudaGetDeviceCount()
    if status == runtime.cudaError_t.cudaErrorInsufficientDriver:
        raise EngineError(
            f"the GPU's driver serves {_cuda(driver_version)}, and the cuda-python that is installed wants a "
            "later one: update the driver, or pip install 'cuda-python<13'"
        )
    if status != runtime.cudaError_t.cudaSuccess or not count:
        raise EngineError(f"there is no GPU here that CUDA can use ({status.name}, {count or 0} found)")
    properties = checked(runtime.cudaGetDeviceProperties(0))
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(
        name=name.rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_mib=properties.totalGlobalMem >> 20,
        driver=_driver(driver_version),
    )


def checked(answer: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """What a CUDA call returned behind its status: nothing, a value, or several.

    Raises:
        EngineError: the call failed.
    """
    status, *values = answer
    if status.value:
        raise EngineError(f"CUDA failed: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)


def _driver(cuda_version: int) -> str:
    """The driver's own version, where Linux tells it, and the newest CUDA that it serves."""
    cuda = _cuda(cuda_version)
    return f"{_DRIVER_VERSION.read_text().strip()} ({cuda})" if _DRIVER_VERSION.exists() else cuda


def _cuda(version: int) -> str:
    return f"CUDA {version // 1000}.{version % 1000 // 10}"
