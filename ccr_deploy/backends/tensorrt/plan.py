"""Deserialize a plan, and keep TensorRT's error messages for exceptions.

TensorRT reports from its own threads too, for example from those that compile kernels. A logger or error
recorder that is written in Python needs Python's global lock (GIL) there. If the thread that called TensorRT
holds the lock and waits for the reporting thread, both wait forever. Therefore:

- The logger is TensorRT's own, in C++, which runs no Python code. It gets messages of every severity, and
  prints to the standard output, which belongs to the command's result: all but internal errors are off.
- Errors go to an error recorder. An object with a recorder does not log its errors, so that a user sees each
  once, in the exception. From Python a recorder can only be written in Python, but it gets errors alone, not
  the messages of work that succeeds. The calls that may compile kernels in other threads release the lock:
  `deserialize_cuda_engine`, `execute_async_v3` and, from TensorRT 9 on, `create_execution_context` (8.6
  compiles nothing at run time). The others hold it, but only check and store arguments: they report from the
  thread that called them, which may take the lock again. (`python/src/infer/pyCore.cpp` in TensorRT's
  repository has the bindings.)
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path


NO_REASON = "no reason given"
_LONGEST_MESSAGE = 500


@cache
def quiet_logger(library: Any) -> Any:  # noqa: ANN401
    """Return TensorRT's logger, which runners share, because TensorRT supports only one in a process."""
    return library.Logger(library.Logger.INTERNAL_ERROR)


def error_recorder(library: Any) -> Any:  # noqa: ANN401
    """Return a recorder of the errors of one runtime, its engine and its contexts.

    Besides TensorRT's interface it has `summary`: the errors since the last `clear`, on one line.
    """
    return _recorder_class(library)()


@cache
def _recorder_class(library: Any) -> Any:  # noqa: ANN401
    class ErrorRecorder(library.IErrorRecorder):  # type: ignore[misc] # the library has no types
        # The names of the methods are TensorRT's; it calls them from any thread.
        def __init__(self) -> None:
            library.IErrorRecorder.__init__(self)
            self._lock = threading.Lock()
            self._errors: list[tuple[Any, str]] = []

        def report_error(self, code: Any, description: str) -> bool:  # noqa: ANN401
            with self._lock:
                self._errors.append((code, " ".join(description.split())))
            return True  # the call that failed must end

        def clear(self) -> None:
            with self._lock:
                self._errors.clear()

        def num_errors(self) -> int:
            return len(self._errors)

        get_num_errors = num_errors  # the binding calls this name, and documents the other

        def get_error_code(self, index: int) -> Any:  # noqa: ANN401
            return self._errors[index][0]

        def get_error_desc(self, index: int) -> str:
            return self._errors[index][1]

        def has_overflowed(self) -> bool:
            return False

        @property
        def summary(self) -> str:
            # The first error causes the others.
            with self._lock:
                messages = dict.fromkeys(message for _, message in self._errors)
            return "; ".join(messages)[:_LONGEST_MESSAGE] or NO_REASON

    return ErrorRecorder


def deserialize(
    library: Any,  # noqa: ANN401
    plan: bytes,
    path: Path,
    errors: Any,  # noqa: ANN401
    *,
    allow_host_code: bool,
) -> tuple[Any, Any]:
    """Deserialize a plan.

    Args:
        library: TensorRT or TensorRT-RTX.
        plan: the content of the engine's file, already compared with its sidecar.
        path: the engine's file, for messages.
        errors: the recorder of the errors of the runtime, the engine and its contexts.
        allow_host_code: whether the plan may execute the code that it contains. A version-compatible plan
            contains the runtime that executes it.

    Returns:
        TensorRT's runtime, which has to outlive the engine, and the engine.

    Raises:
        EngineError: if TensorRT rejects the plan.
    """
    runtime = library.Runtime(quiet_logger(library))
    runtime.error_recorder = errors  # the engine and its contexts get it from the runtime
    if allow_host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{path}: TensorRT {library.__version__} cannot load it ({errors.summary})")
    return runtime, engine


def scratch_bytes(engine: Any) -> int:  # noqa: ANN401
    """Return the size of the scratch memory of an execution context, in bytes."""
    # TensorRT before 10.1 has only the older name.
    name = "device_memory_size_v2" if hasattr(engine, "device_memory_size_v2") else "device_memory_size"
    return int(getattr(engine, name))
