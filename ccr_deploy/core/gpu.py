"""The GPU of this machine: the first one that CUDA reports, subject to ``CUDA_VISIBLE_DEVICES``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from ccr_deploy.core.gpu_driver import extras_here, find_driver
from ccr_deploy.errors import EngineError, MissingExtraError


@dataclass(frozen=True)
class Gpu:
    """A GPU: name, compute capability (``"9.0"``), memory in MiB and driver version."""

    name: str
    compute_capability: str
    memory_mib: int
    driver: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


def cuda_runtime() -> Any:  # noqa: ANN401 -- the library has no types
    """Import the bindings of the CUDA runtime.

    Raises:
        MissingExtraError: if cuda-python is not installed.
        EngineError: if it is not installed and the driver is too old for every extra that installs it.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        extras = extras_here()
        if not extras.names:
            raise EngineError(f"no usable GPU found: {extras.reason}") from None
        raise MissingExtraError("cuda-python", extras.names, "using a GPU") from None
    return runtime


@cache  # initialising CUDA takes time, and a machine's GPU does not change while a process runs
def find_gpu() -> Gpu:
    """Return this machine's GPU.

    Raises:
        EngineError: if there is none, or its driver does not respond or is too old.
        MissingExtraError: if there is a driver, but cuda-python is not installed.
    """
    driver = find_driver()
    if driver is None:
        raise EngineError("no GPU found: no NVIDIA driver is installed")
    if driver.cuda is None:
        raise EngineError(
            f"no GPU found that CUDA can use: the driver {driver} is loaded, but its library libcuda.so.1 is "
            "missing (start a container with docker run --gpus all)"
        )
    runtime = cuda_runtime()
    status, count = runtime.cudaGetDeviceCount()
    if status == runtime.cudaError_t.cudaErrorInsufficientDriver:
        raise EngineError(
            f"the installed cuda-python needs a newer driver than {driver}: {extras_here().advice}"
        )
    # On an error the count may be None.
    if status != runtime.cudaError_t.cudaSuccess or not count:
        raise EngineError(f"no GPU found that CUDA can use ({status.name}, {count or 0} devices)")
    properties = checked(runtime.cudaGetDeviceProperties(0))
    # The name may come as bytes, padded with NUL.
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(
        name=name.rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_mib=properties.totalGlobalMem >> 20,
        driver=str(driver),
    )


def checked(answer: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Return the values of a CUDA call without its status: one value, or a tuple of none or several.

    Raises:
        EngineError: if the call failed.
    """
    status, *values = answer
    if status.value:
        raise EngineError(f"CUDA failed: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)
