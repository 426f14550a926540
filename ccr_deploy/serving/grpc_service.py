"""The protocol over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc_interceptor.server import AsyncServerInterceptor
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer

from ccr_deploy.serving.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from kserve.protocol.dataplane import DataPlane

_MOST_CALLS = 1000


class _Servicer(InferenceServicer):
    """KServe's servicer without its model repository: clients load and unload nothing here."""

    def __init__(self, dataplane: DataPlane) -> None:
        super().__init__(dataplane, model_repository_extension=None)

    async def RepositoryModelLoad(self, request: object, context: Any) -> None:  # noqa: ANN401, ARG002, N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "models are not loaded by clients")

    async def RepositoryModelUnload(self, request: object, context: Any) -> None:  # noqa: ANN401, ARG002, N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "models are not unloaded by clients")


class Calls(AsyncServerInterceptor):
    """The calls in progress, and their errors as status codes.

    KServe's own interceptor fails on errors without a `reason`, such as that of a model that is not ready.
    """

    def __init__(self) -> None:
        self.in_progress = 0

    async def intercept(
        self,
        method: Callable[..., Any],
        request_or_iterator: Any,  # noqa: ANN401
        context: Any,  # noqa: ANN401
        method_name: str,  # noqa: ARG002
    ) -> object:
        """Calls the method; an error it raises ends the call with the status of its kind."""
        self.in_progress += 1
        try:
            return await method(request_or_iterator, context)
        except Exception as error:
            if not context.code():  # else it was ended already, with a status of its own
                model_name = getattr(request_or_iterator, "model_name", "")
                await context.abort(refusal(error, model_name).grpc, str(error))
            raise
        finally:
            self.in_progress -= 1


def grpc_server(dataplane: DataPlane, calls: Calls, *, max_message_bytes: int) -> grpc.aio.Server:
    """The server, without an address yet; gRPC itself refuses longer messages."""
    server = grpc.aio.server(
        interceptors=[calls],
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # else two servers would share a port, and each get some requests
        ],
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    add_GRPCInferenceServiceServicer_to_server(_Servicer(dataplane), server)
    return server
