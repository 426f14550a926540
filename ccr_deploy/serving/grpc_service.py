"""The protocol over gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_interceptor.server import AsyncServerInterceptor

from ccr_deploy.serving import kserve_sdk as kserve
from ccr_deploy.serving.client_limits import MAX_HEAD_BYTES
from ccr_deploy.serving.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.serving.client_limits import Times

_MOST_CALLS = 1000
_MOST_CALLS_OF_A_CONNECTION = 100


class _Servicer(kserve.InferenceServicer):
    """KServe's servicer without its model repository: clients load and unload nothing here."""

    async def RepositoryModelLoad(self, request: object, context: Any) -> None:  # noqa: ANN401, ARG002, N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "models are not loaded by clients")

    async def RepositoryModelUnload(self, request: object, context: Any) -> None:  # noqa: ANN401, ARG002, N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "models are not unloaded by clients")


class Calls(AsyncServerInterceptor):
    """The calls in progress, and their errors as status codes.

    KServe's own interceptor fails on errors without a `reason`, such as that of a model that is not ready;
    and gRPC itself calls a message that it cannot read an error of the server's, `INTERNAL`.
    """

    def __init__(self) -> None:
        self.in_progress = 0
        self.answered = 0

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401
        """Return the method's handler, which is called for messages that cannot be read too."""
        handler: Any = await super().intercept_service(continuation, handler_call_details)  # type: ignore[no-untyped-call]
        return handler and handler._replace(request_deserializer=_lenient(handler.request_deserializer))

    async def intercept(
        self,
        method: Callable[..., Any],
        request_or_iterator: Any,  # noqa: ANN401
        context: Any,  # noqa: ANN401
        method_name: str,  # noqa: ARG002
    ) -> object:
        """Calls the method; an error it raises ends the call with the status of its kind."""
        self.in_progress += 1
        answered = 1
        try:
            if isinstance(request_or_iterator, kserve.InvalidInput):
                await context.abort(refusal(request_or_iterator).grpc, str(request_or_iterator))
            return await method(request_or_iterator, context)
        except asyncio.CancelledError:
            answered = 0
            raise
        except Exception as error:
            if not context.code():  # else it was ended already, with a status of its own
                model_name = getattr(request_or_iterator, "model_name", "")
                await context.abort(refusal(error, model_name).grpc, str(error))
            raise
        finally:
            self.in_progress -= 1
            self.answered += answered


def grpc_server(
    dataplane: kserve.DataPlane, calls: Calls, times: Times, *, max_connections: int, max_message_bytes: int
) -> grpc.aio.Server:
    """Return the server, without an address yet; gRPC itself keeps the limits.

    Args:
        dataplane: What answers.
        calls: What counts them.
        times: What clients have.
        max_connections: The most at once; new ones are closed beyond it.
        max_message_bytes: The largest request.
    """
    server = grpc.aio.server(
        interceptors=[calls],
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # else two servers would share a port, and each get some requests
            ("grpc.max_allowed_incoming_connections", max_connections),
            ("grpc.max_concurrent_streams", _MOST_CALLS_OF_A_CONNECTION),
            ("grpc.absolute_max_metadata_size", MAX_HEAD_BYTES),
            ("grpc.server_handshake_timeout_ms", _milliseconds(times.head)),
            ("grpc.max_connection_idle_ms", _milliseconds(times.idle)),
            # A message may take for ever to arrive: a connection's age, then a grace, end one that stalls.
            ("grpc.max_connection_age_ms", _milliseconds(times.call)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(times.request)),
        ],
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    servicer = _Servicer(dataplane, model_repository_extension=None)
    kserve.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    return server


def _lenient(deserialize: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Returns the error in the place of a message that cannot be read."""

    def read(message: bytes) -> object:
        try:
            return deserialize(message)
        except DecodeError as error:
            return kserve.InvalidInput(f"the message is no protobuf of this method's: {error}")

    return read


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
