"""The Open Inference Protocol over HTTP: inference, metadata, health, and Prometheus metrics."""

from __future__ import annotations

import asyncio
import logging
import re
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
    from collections.abc import Generator, Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    from ccr_deploy.serving.http_codec import Headers
    from ccr_deploy.serving.http_connections import Connections
    from ccr_deploy.serving.kserve_sdk import DataPlane

_INFER_PATH = re.compile("/v2/models/(?P<model>[^/]+)/infer")
_ERRORS: tuple[type[Exception], ...] = (*REFUSALS, HTTPException, ClientDisconnect)
"""The errors of requests; any other one would be a defect."""
_BACKLOG = 1024
_FLUSH_SECONDS = 0.2
"""Time for the responses of cancelled requests to be written before the connections are closed."""


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers, which raise the signal again after the shutdown."""

    def __init__(self, app: ASGIApp, connections: Connections) -> None:
        """Create a server. Its shutdown waits for the requests in flight until `cut` is called."""
        self.connections = connections
        config = uvicorn.Config(
            _cuttable(app),
            http=cast("type[asyncio.Protocol]", partial(Connection, connections)),
            ws="none",  # an upgraded connection would escape the limits
            log_config=None,
            log_level=logging.ERROR,  # clients' errors are counted in a metric, not logged
            access_log=False,
            lifespan="off",
            backlog=ACCEPTED_AT_ONCE,
        )
        super().__init__(config)

    @property
    def answered(self) -> int:
        """The number of responses so far, errors included."""
        return self.server_state.total_requests + self.connections.refused

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then raise the backlog.

        asyncio accepts up to the backlog's number of connections in one iteration of the event loop, so
        that the backlog that uvicorn knows is small.
        """
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_BACKLOG)

    async def cut(self) -> None:
        """End the requests in flight, with status 503 if the client is still connected."""
        self.connections.cut()
        for task in list(self.server_state.tasks):
            task.cancel()
        await asyncio.sleep(_FLUSH_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the caller."""
        yield


def _cuttable(app: ASGIApp) -> ASGIApp:
    """Wrap an application so that a cancelled request gets a response instead of a log entry."""

    async def _answer_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            message = {"error": "the server stopped before the request was finished"}
            answer = JSONResponse(message, HTTPStatus.SERVICE_UNAVAILABLE, {"Connection": "close"})
            await answer(scope, receive, send)

    return _answer_cancelled


def http_app(dataplane: DataPlane, *, max_body_bytes: int) -> ASGIApp:
    """Return the application. Bodies larger than `max_body_bytes` are rejected before they are read.

    Requests for inference do not pass FastAPI, nor Starlette's requests and responses: routing, dependencies
    and middlewares take longer than everything else that is done with a request, except the engine's run.
    """
    others = _information(dataplane)

    async def _app(scope: Scope, receive: Receive, send: Send) -> None:
        found = _INFER_PATH.fullmatch(scope["path"])
        if not found:
            await others(scope, receive, send)
            return
        try:
            content, headers = await infer(scope, receive, found["model"])
        except _ERRORS as error:
            await _error_response(error, found["model"])(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": HTTPStatus.OK.value, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def infer(scope: Scope, receive: Receive, model_name: str) -> tuple[bytes, Headers]:
        """Return the response's body and headers.

        Args:
            scope: the request's method, path and headers, as in ASGI.
            receive: returns the next part of the body.
            model_name: the model, from the path.
        """
        if scope["method"] != "POST":
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "POST"})
        dataplane.get_model_from_registry(model_name)  # reject unknown models before reading the body
        headers = dict(scope["headers"])
        body = await _body(headers, receive, max_body_bytes)
        decoded = read_request(body, headers.get(JSON_LENGTH_HEADER), model_name)
        answer, _ = await dataplane.infer(model_name, decoded)
        return write_response(answer, decoded)

    return _app


def _information(dataplane: DataPlane) -> FastAPI:
    """Return the application for metadata, health and metrics."""
    app = FastAPI(title="ccr-deploy", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    known = V2Endpoints(dataplane)
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
    for kind in _ERRORS:
        app.add_exception_handler(kind, _refused)
    return app


async def _body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """Read the request's body.

    Args:
        headers: the request's headers, their names in lower case.
        receive: returns the next part of the body.
        limit: the largest body, in bytes.

    Raises:
        HTTPException: if it is compressed.
        TooLargeError: if it is longer than the limit, or its Content-Length is.
        ClientDisconnect: if the client closes the connection.
    """
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise HTTPException(
            415, "compressed bodies are not supported: send the body without Content-Encoding"
        )
    parts: list[bytes] = []
    size = 0
    is_too_large = int(headers.get(b"content-length", b"0")) > limit  # the HTTP parser accepts digits only
    more = True
    while more and not is_too_large:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message["body"])
        size += len(parts[-1])
        is_too_large = size > limit
        more = message["more_body"]
    if is_too_large:
        raise TooLargeError(f"the body is larger than {limit} bytes, the limit for one request")
    return b"".join(parts)


async def _refused(request: Request, error: Exception) -> Response:
    return _error_response(error, request.path_params.get("model_name", ""))


def _error_response(error: Exception, model_name: str) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody reads it
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return JSONResponse({"error": str(error)}, refusal(error, model_name).http)
