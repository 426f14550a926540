"""From a plan's bytes to an engine, and what TensorRT complains of meanwhile."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path


NO_REASON = "it gives no reason"


@cache
def complaints_of(library: Any) -> Any:  # noqa: ANN401
    """The logger that keeps TensorRT's last complaint: one for all runners, since TensorRT has one logger."""

    class Complaints(library.ILogger):  # type: ignore[misc] # imported by name
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.last = NO_REASON

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            if severity in {library.ILogger.Severity.ERROR, library.ILogger.Severity.INTERNAL_ERROR}:
                self.last = " ".join(message.split())[:500]

    return Complaints()


def deserialised(library: Any, plan: bytes, path: Path, carries_code: bool) -> tuple[Any, Any]:  # noqa: ANN401
    """TensorRT's runtime, and the engine of a plan that was read from `path`.

    A plan that `carries_code` of its own, the runtime that reads it, is allowed to run it.

    Raises:
        EngineError: TensorRT refuses the plan.
    """
    complaints = complaints_of(library)
    complaints.last = NO_REASON
    runtime = library.Runtime(complaints)
    if carries_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{path}: TensorRT {library.__version__} cannot load it ({complaints.last})")
    return runtime, engine


def scratch_bytes(engine: Any) -> int:  # noqa: ANN401
    """What all contexts share; TensorRT before 10.1 has only the older name."""
    name = "device_memory_size_v2" if hasattr(engine, "device_memory_size_v2") else "device_memory_size"
    return int(getattr(engine, name))
