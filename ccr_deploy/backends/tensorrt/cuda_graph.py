"""A captured CUDA graph: one launch for the copies in, the engine's kernels and the copies out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ccr_deploy.errors import EngineError
from ccr_deploy.gpu import checked, cuda_runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

_LOGGER = logging.getLogger(__name__)


def capture(enqueue: Callable[[], None], stream: int, stack: ExitStack) -> Callable[[], None]:
    """What launches the work that `enqueue` puts into a stream, captured once as a graph.

    The same work must have run once in this stream before. Where it cannot be captured, `enqueue` itself is
    returned. The graph is given back when `stack` unwinds.
    """
    runtime = cuda_runtime()
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    checked(runtime.cudaStreamBeginCapture(stream, mode))
    try:
        enqueue()
    except EngineError as error:
        failure: EngineError | None = error
    else:
        failure = None
    status, graph = runtime.cudaStreamEndCapture(stream)
    if failure or status != runtime.cudaError_t.cudaSuccess:
        runtime.cudaGetLastError()  # or the next call reports it as its own
        _LOGGER.warning("the engine cannot be captured as a CUDA graph (%s)", failure or status.name)
        return enqueue
    executable: Any = checked(runtime.cudaGraphInstantiate(graph, 0))
    stack.callback(runtime.cudaGraphExecDestroy, executable)
    checked(runtime.cudaGraphDestroy(graph))
    return lambda: checked(runtime.cudaGraphLaunch(executable, stream))
