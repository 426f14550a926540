"""The local server: runs a bundle's engines behind the Open Inference Protocol V2, over HTTP and gRPC.

::

    http_service   HTTP: request bytes to tensors, tensors to response bytes, health, metrics
    grpc_service   the same over gRPC
    models         tensors to an engine's input, an engine's output to tensors
    engine_queue   the queue of requests for one engine, and the one thread that runs it
    server         the two ports and the two engines: start, run, stop
    kserve_sdk     the names that the other modules import from KServe's SDK

KServe's SDK implements the protocol. Two parts of it are not used: its parser of HTTP bodies, which converts
binary tensors to lists of Python numbers and rejects bytes that are not UTF-8, and its `ModelServer`, which
listens on all addresses, lets clients unload models, and always reports that it is ready.
"""

from __future__ import annotations

from ccr_deploy.errors import MissingExtraError


def require_kserve() -> None:
    """Check that KServe's SDK is installed: the other modules of this package import it when they are loaded.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import ccr_deploy.serving.kserve_sdk  # noqa: F401
    # Any other ImportError comes from within the SDK, and installing the extra would not fix it.
    except ModuleNotFoundError:
        raise MissingExtraError("kserve", "serve", "the local server") from None
