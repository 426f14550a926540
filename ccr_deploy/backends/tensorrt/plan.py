"""Deserialize a plan, and keep TensorRT's last error message for exceptions."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path


NO_REASON = "no reason given"


@cache
def error_logger(library: Any) -> Any:  # noqa: ANN401
    """Return the logger that keeps TensorRT's last error; TensorRT supports only one, which runners share."""

    class ErrorLogger(library.ILogger):  # type: ignore[misc] # the library has no types
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.last = NO_REASON

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            if severity in {library.ILogger.Severity.ERROR, library.ILogger.Severity.INTERNAL_ERROR}:
                self.last = " ".join(message.split())[:500]

    return ErrorLogger()


def deserialize(library: Any, plan: bytes, path: Path, *, allow_host_code: bool) -> tuple[Any, Any]:  # noqa: ANN401
    """Deserialize a plan.

    Args:
        library: TensorRT or TensorRT-RTX.
        plan: the content of the engine's file, already compared with its sidecar.
        path: the engine's file, for messages.
        allow_host_code: whether the plan may execute the code that it contains. A version-compatible plan
            contains the runtime that executes it.

    Returns:
        TensorRT's runtime, which has to outlive the engine, and the engine.

    Raises:
        EngineError: if TensorRT rejects the plan.
    """
    logger = error_logger(library)
    logger.last = NO_REASON
    runtime = library.Runtime(logger)
    if allow_host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{path}: TensorRT {library.__version__} cannot load it ({logger.last})")
    return runtime, engine


def scratch_bytes(engine: Any) -> int:  # noqa: ANN401
    """Return the size of the scratch memory of an execution context, in bytes."""
    # TensorRT before 10.1 has only the older name.
    name = "device_memory_size_v2" if hasattr(engine, "device_memory_size_v2") else "device_memory_size"
    return int(getattr(engine, name))
