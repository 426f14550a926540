"""Capture a CUDA graph: one launch for all kernels of an engine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ccr_deploy.core.gpu import checked
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

_LOGGER = logging.getLogger(__name__)


def capture(
    cuda: Any,  # noqa: ANN401 -- the library has no types
    enqueue: Callable[[], None],
    stream: int,
    stack: ExitStack,
) -> Callable[[], None] | None:
    """Capture the work that `enqueue` puts into a stream, and return a function that launches it.

    The same work must have run once in this stream before. The memory and the contexts that it uses must live
    as long as the graph.

    Args:
        cuda: the bindings of the CUDA runtime.
        enqueue: put the work into the stream.
        stream: the CUDA stream.
        stack: destroys the graph when it unwinds.

    Returns:
        A function that launches the graph; None if the work cannot be captured.
    """
    # ThreadLocal, so that calls of other threads, such as cudaMalloc, do not invalidate the capture.
    mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    checked(cuda.cudaStreamBeginCapture(stream, mode))
    failure = None
    try:
        enqueue()
    except EngineError as error:
        failure = str(error)
    except BaseException:
        _, graph = cuda.cudaStreamEndCapture(stream)
        if graph:
            cuda.cudaGraphDestroy(graph)
        raise
    # Also after an error: a stream whose capture is not ended cannot be used again.
    status, graph = cuda.cudaStreamEndCapture(stream)
    if not failure and status != cuda.cudaError_t.cudaSuccess:
        failure = status.name
    if not failure:
        status, executable = cuda.cudaGraphInstantiate(graph, 0)
        failure = None if status == cuda.cudaError_t.cudaSuccess else status.name
    if graph:
        cuda.cudaGraphDestroy(graph)
    if failure:
        cuda.cudaGetLastError()  # clears the error, which the next call would report otherwise
        _LOGGER.warning("the engine cannot be captured as a CUDA graph: %s", failure)
        return None
    stack.callback(cuda.cudaGraphExecDestroy, executable)
    return lambda: checked(cuda.cudaGraphLaunch(executable, stream))
