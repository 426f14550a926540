"""The local server: a bundle's engines behind the Open Inference Protocol V2, over HTTP and gRPC.

::

    http_service   bytes of a request to tensors, tensors to bytes of an answer; health; metrics
    grpc_service   the same over gRPC
    models         tensors to an engine's input, an engine's output to tensors
    engine_queue   the requests that wait for an engine, and the one thread that runs it
    server         the two ports, the two engines, and how they start and stop
    kserve_sdk     the names that the others take from KServe's SDK

KServe's SDK brings the protocol. Two things of it are not used: its own reading of HTTP bodies (binary
tensors become lists of Python numbers, and bytes that are no text are refused) and its `ModelServer` (it
listens on every address, lets clients unload models, and always says that it is ready).
"""

from __future__ import annotations

from ccr_deploy.errors import MissingExtraError


def require_kserve() -> None:
    """Does nothing where KServe's SDK is installed, which the other modules here import at once.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import ccr_deploy.serving.kserve_sdk  # noqa: F401
    except ModuleNotFoundError:  # another ImportError is one of the SDK's, which its extra would not mend
        raise MissingExtraError("kserve", "serve", "the local server") from None
