"""A matrix product and a copy on a GPU in PyTorch, timed by CUDA events, to measure the GPU's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.pytorch.backend import import_torch
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.core.precisions import EnginePrecision

_TYPES: dict[EnginePrecision, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def gpu_product(precision: EnginePrecision, size: int, *, tf32: bool) -> Callable[[], float]:
    """Return a function that multiplies two square matrices on the GPU and returns the seconds.

    Args:
        precision: the precision to compute in.
        size: rows and columns of the matrices.
        tf32: whether FP32 products may be computed in TF32.

    Raises:
        EngineError: if PyTorch has no such product, or finds no GPU.
    """
    torch = _torch_with_gpu()
    if precision not in _TYPES:
        raise EngineError(f"PyTorch has no matrix product in {precision.upper()}")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    first, second = (
        torch.rand(size, size, device="cuda", dtype=getattr(torch, _TYPES[precision])) for _ in range(2)
    )
    result = torch.empty_like(first)
    return _timed(torch, lambda: torch.mm(first, second, out=result))


def gpu_copy(array_bytes: int) -> Callable[[], float]:
    """Return a function that copies an array on the GPU and returns the seconds.

    Args:
        array_bytes: the size of the array.

    Raises:
        EngineError: if PyTorch finds no GPU.
    """
    torch = _torch_with_gpu()
    source = torch.ones(array_bytes, device="cuda", dtype=torch.uint8)
    result = torch.empty_like(source)
    return _timed(torch, lambda: result.copy_(source))


def gpu_library() -> str:
    """Return PyTorch's version and the GPU's name."""
    torch = _torch_with_gpu()
    return f"PyTorch {torch.__version__} on {torch.cuda.get_device_name(0)}"


def _torch_with_gpu() -> Any:  # noqa: ANN401
    torch = import_torch()
    if not torch.cuda.is_available():
        raise EngineError(f"PyTorch {torch.__version__} found no GPU on this machine")
    return torch


def _timed(torch: Any, run: Callable[[], object]) -> Callable[[], float]:  # noqa: ANN401
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def seconds() -> float:
        start.record()
        run()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3

    return seconds
