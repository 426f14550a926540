"""The Open Inference Protocol over gRPC."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from ccr_deploy.serving import kserve_sdk as kserve
from ccr_deploy.serving.client_limits import MAX_HEAD_BYTES
from ccr_deploy.serving.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.serving.client_limits import Times

_MAX_CALLS = 1000
_MAX_CALLS_PER_CONNECTION = 100
"""HTTP/2 recommends at least 100 concurrent streams per connection (RFC 9113, section 6.5.2)."""


class _Servicer(kserve.InferenceServicer):
    """KServe's servicer without the model repository extension: clients cannot load or unload models."""

    async def ModelInfer(self, request: Any, context: object) -> Any:  # noqa: ANN401, ARG002, N802
        """Return the response to one request. KServe's own method also copies the call's metadata.

        Args:
            request: the message.
            context: the call's context; not used.
        """
        self.validate_grpc_request(request)
        answer, _ = await self._data_plane.infer(request.model_name, kserve.InferRequest.from_grpc(request))
        return answer.to_grpc()

    async def RepositoryModelLoad(self, request: object, context: Any) -> None:  # noqa: ANN401, ARG002, N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "loading models is not supported")

    async def RepositoryModelUnload(self, request: object, context: Any) -> None:  # noqa: ANN401, ARG002, N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unloading models is not supported")


class Calls(grpc.aio.ServerInterceptor):
    """Interceptor that counts calls and maps errors to status codes.

    KServe's own interceptor fails on errors without a `reason`, for example `ModelNotReady`; and gRPC
    reports a message that it cannot parse as `INTERNAL`, an error of the server.
    """

    def __init__(self) -> None:
        self.in_progress = 0
        self.answered = 0
        self._handlers: dict[str, Any] = {}  # one for each method, not one for each call

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401
        """Return the handler of a call's method, None if there is no such method.

        A method that streams keeps its own handler.

        Args:
            continuation: returns the servicer's own handler.
            handler_call_details: the name of the method, and the call's metadata.
        """
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if not handler or not handler.unary_unary:
                return handler
            self._handlers[method] = grpc.unary_unary_rpc_method_handler(
                partial(self._call, handler.unary_unary),
                _lenient(handler.request_deserializer),
                handler.response_serializer,
            )
        return self._handlers[method]

    async def _call(self, method: Callable[..., Any], request: Any, context: Any) -> object:  # noqa: ANN401
        """Call a method, and end the call with the matching status code if it raises an error.

        Args:
            method: the method of the servicer.
            request: the parsed message, or an `InvalidInput` if it cannot be parsed.
            context: the call's context.
        """
        self.in_progress += 1
        answered = 1
        try:
            if isinstance(request, kserve.InvalidInput):
                await context.abort(refusal(request).grpc, str(request))
            return await method(request, context)
        except asyncio.CancelledError:
            answered = 0
            raise
        except Exception as error:
            if not context.code():  # otherwise `context.abort` has set a status already
                model_name = getattr(request, "model_name", "")
                await context.abort(refusal(error, model_name).grpc, str(error))
            raise
        finally:
            self.in_progress -= 1
            self.answered += answered


def grpc_server(
    dataplane: kserve.DataPlane, calls: Calls, times: Times, *, max_connections: int, max_message_bytes: int
) -> grpc.aio.Server:
    """Return the server, without an address yet. gRPC itself enforces the limits.

    Args:
        dataplane: the data plane that runs the requests.
        calls: the interceptor that counts calls and maps their errors.
        times: timeouts for clients, in seconds.
        max_connections: the most open connections; further ones are closed.
        max_message_bytes: the largest request, in bytes.
    """
    server = grpc.aio.server(
        interceptors=[calls],
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # otherwise two servers could share a port and split the requests
            ("grpc.max_allowed_incoming_connections", max_connections),
            ("grpc.max_concurrent_streams", _MAX_CALLS_PER_CONNECTION),
            ("grpc.absolute_max_metadata_size", MAX_HEAD_BYTES),
            ("grpc.server_handshake_timeout_ms", _milliseconds(times.head)),
            ("grpc.max_connection_idle_ms", _milliseconds(times.idle)),
            # gRPC has no timeout for a message that stalls: the connection's age and a grace end it.
            ("grpc.max_connection_age_ms", _milliseconds(times.call)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(times.request)),
        ],
        maximum_concurrent_rpcs=_MAX_CALLS,
    )
    servicer = _Servicer(dataplane, model_repository_extension=None)
    kserve.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    return server


def _lenient(deserialize: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return a parser that returns an `InvalidInput` instead of raising if it cannot parse a message."""

    def read(message: bytes) -> object:
        try:
            return deserialize(message)
        except DecodeError as error:
            return kserve.InvalidInput(f"the message is not a valid protobuf message of this method: {error}")

    return read


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
