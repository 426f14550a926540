"""The protocol over HTTP: inference, metadata, health, and Prometheus' metrics."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ccr_deploy import __version__
from ccr_deploy.serving.client_limits import ACCEPTED_AT_ONCE
from ccr_deploy.serving.http_codec import JSON_LENGTH_HEADER, read_request, write_response
from ccr_deploy.serving.http_connections import Connection
from ccr_deploy.serving.kserve_sdk import V2Endpoints, metrics_handler
from ccr_deploy.serving.refusals import REFUSALS, TooLargeError, refusal

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from ccr_deploy.serving.http_connections import Connections
    from ccr_deploy.serving.kserve_sdk import DataPlane

_BACKLOG = 1024
_FLUSH_SECONDS = 0.2


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal once it has shut down."""

    def __init__(self, app: FastAPI, connections: Connections) -> None:
        """A server that waits at its end for the requests in flight, until they are `cut`."""
        self.connections = connections
        config = uvicorn.Config(
            _cuttable(app),
            http=cast("type[asyncio.Protocol]", partial(Connection, connections)),
            ws="none",  # else a connection that is upgraded escapes the limits
            log_config=None,
            log_level=logging.ERROR,  # clients' mistakes are counted, and fill no log
            access_log=False,
            lifespan="off",
            backlog=ACCEPTED_AT_ONCE,
        )
        super().__init__(config)

    @property
    def answered(self) -> int:
        """The requests that were answered so far, refusals included."""
        return self.server_state.total_requests + self.connections.refused

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. asyncio accepts as many connections at once as may wait; more may wait."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_BACKLOG)

    async def cut(self) -> None:
        """End the requests that were not answered, with status 503 where there is somebody to read it."""
        self.connections.cut()
        for task in list(self.server_state.tasks):
            task.cancel()
        await asyncio.sleep(_FLUSH_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leaves signals to the caller."""
        yield


def _cuttable(app: FastAPI) -> ASGIApp:
    """An application whose requests, when they are cancelled, are answered rather than logged."""

    async def answer_all(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            message = {"error": "the server ended before it answered"}
            answer = JSONResponse(message, HTTPStatus.SERVICE_UNAVAILABLE, {"Connection": "close"})
            await answer(scope, receive, send)

    return answer_all


def http_app(dataplane: DataPlane, *, max_body_bytes: int) -> FastAPI:
    """The application; larger bodies are refused before they are read."""
    app = FastAPI(title="ccr-deploy", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    known = V2Endpoints(dataplane)

    async def infer(request: Request, model_name: str) -> Response:
        dataplane.get_model_from_registry(model_name)  # before the body is read
        body = await _body(request, max_body_bytes)
        decoded = read_request(body, request.headers.get(JSON_LENGTH_HEADER), model_name)
        answer, _ = await dataplane.infer(model_name, decoded)
        content, headers = write_response(answer, decoded)
        return Response(content, headers=headers)

    for path, endpoint in {
        "/v2": known.metadata,
        "/v2/health/live": known.live,
        "/v2/health/ready": known.ready,
        "/v2/models": known.models,
        "/v2/models/{model_name}": known.model_metadata,
        "/v2/models/{model_name}/ready": known.model_ready,
        "/metrics": metrics_handler,
    }.items():
        app.add_api_route(path, endpoint, methods=["GET"])
    app.add_api_route("/v2/models/{model_name}/infer", infer, methods=["POST"])
    for kind in REFUSALS:
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(ClientDisconnect, _hung_up)
    return app


async def _body(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        HTTPException: it is compressed.
        TooLargeError: it is longer than the limit, or says that it will be.
    """
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise HTTPException(415, "compressed bodies are not read: send it as it is")
    announced = request.headers.get("Content-Length", "0")
    parts: list[bytes] = []
    size = int(announced)  # the HTTP parser lets nothing but digits through
    if size <= limit:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                break
            parts.append(part)
    if size > limit:
        raise TooLargeError(f"the body is larger than {limit} bytes, the largest request that is taken")
    return b"".join(parts)


async def _refused(request: Request, error: Exception) -> Response:
    status = refusal(error, request.path_params.get("model_name", "")).http
    return JSONResponse({"error": str(error)}, status)


async def _not_routed(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _hung_up(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # that nobody reads; without it the error would be logged
