"""Capture a CUDA graph: one launch for the copies in, the engine's kernels and the copies out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ccr_deploy.core.gpu import checked, cuda_runtime
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

_LOGGER = logging.getLogger(__name__)


def capture(enqueue: Callable[[], None], stream: int, stack: ExitStack) -> Callable[[], None] | None:
    """Capture the work that `enqueue` puts into a stream, and return a function that launches it.

    The same work must have run once in this stream before. The memory and the contexts that it uses must live
    as long as the graph.

    Args:
        enqueue: put the work into the stream.
        stream: the CUDA stream.
        stack: destroys the graph when it unwinds.

    Returns:
        A function that launches the graph; None if the work cannot be captured.
    """
    runtime = cuda_runtime()
    # ThreadLocal, so that calls of other threads, such as cudaMalloc, do not invalidate the capture.
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    checked(runtime.cudaStreamBeginCapture(stream, mode))
    failure = None
    try:
        enqueue()
    except EngineError as error:
        failure = str(error)
    finally:
        # Also after an error: a stream whose capture is not ended cannot be used again.
        status, graph = runtime.cudaStreamEndCapture(stream)
    if not failure and status != runtime.cudaError_t.cudaSuccess:
        failure = status.name
    if not failure:
        status, executable = runtime.cudaGraphInstantiate(graph, 0)
        failure = None if status == runtime.cudaError_t.cudaSuccess else status.name
    if graph:
        runtime.cudaGraphDestroy(graph)
    if failure:
        runtime.cudaGetLastError()  # clears the error, which the next call would report otherwise
        _LOGGER.warning("the engine cannot be captured as a CUDA graph: %s", failure)
        return None
    stack.callback(runtime.cudaGraphExecDestroy, executable)
    return lambda: checked(runtime.cudaGraphLaunch(executable, stream))
