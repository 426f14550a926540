"""This machine's GPU, as CUDA describes it: the first that ``CUDA_VISIBLE_DEVICES`` lets it see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from ccr_deploy.core.gpu_driver import extras_here, find_driver
from ccr_deploy.errors import EngineError, MissingExtraError


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
        EngineError: likewise, and the driver is too old for every extra that brings it.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        extras = extras_here()
        if not extras.names:
            raise EngineError(f"there is no GPU here that can be used: {extras.reason}") from None
        raise MissingExtraError("cuda-python", extras.names, "using a GPU") from None
    return runtime


@cache
def find_gpu() -> Gpu:
    """This machine's GPU.

    Raises:
        EngineError: there is none, or its driver does not answer or is too old.
        MissingExtraError: there is a driver, but cuda-python is not installed.
    """
    driver = find_driver()
    if driver is None:
        raise EngineError("there is no GPU here: no NVIDIA driver is installed")
    if driver.cuda is None:
        raise EngineError(
            f"there is no GPU here that CUDA can use: the driver {driver} is loaded, but its library "
            "libcuda.so.1 was not found (docker run --gpus all brings it into a container)"
        )
    runtime = cuda_runtime()
    status, count = runtime.cudaGetDeviceCount()
    if status == runtime.cudaError_t.cudaErrorInsufficientDriver:
        raise EngineError(
            f"the cuda-python that is installed wants a later driver than {driver}: {extras_here().advice}"
        )
    if status != runtime.cudaError_t.cudaSuccess or not count:
        raise EngineError(f"there is no GPU here that CUDA can use ({status.name}, {count or 0} found)")
    properties = checked(runtime.cudaGetDeviceProperties(0))
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(
        name=name.rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_mib=properties.totalGlobalMem >> 20,
        driver=str(driver),
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
