"""A captured CUDA graph: one launch for the copies in, the engine's kernels and the copies out."""

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
    """What launches the work that `enqueue` puts into a stream, captured once as a graph.

    The same work must have run once in this stream before, and what it uses must live as long as the graph,
    which is given back when `stack` unwinds. None where the work cannot be captured.
    """
    runtime = cuda_runtime()
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    checked(runtime.cudaStreamBeginCapture(stream, mode))
    complaint = None
    try:
        enqueue()
    except EngineError as error:
        complaint = str(error)
    finally:
        status, graph = runtime.cudaStreamEndCapture(stream)  # whatever happened, or the stream is lost
    if not complaint and status != runtime.cudaError_t.cudaSuccess:
        complaint = status.name
    if not complaint:
        status, executable = runtime.cudaGraphInstantiate(graph, 0)
        complaint = None if status == runtime.cudaError_t.cudaSuccess else status.name
    if graph:
        runtime.cudaGraphDestroy(graph)
    if complaint:
        runtime.cudaGetLastError()  # or the next call reports it as its own
        _LOGGER.warning("the engine cannot be captured as a CUDA graph: %s", complaint)
        return None
    stack.callback(runtime.cudaGraphExecDestroy, executable)
    return lambda: checked(runtime.cudaGraphLaunch(executable, stream))
