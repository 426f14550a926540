"""The protocol over HTTP: inference, metadata, health, and Prometheus' metrics."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from kserve.protocol.rest.server import metrics_handler
from kserve.protocol.rest.v2_endpoints import V2Endpoints
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ccr_deploy import __version__
from ccr_deploy.serving.http_codec import JSON_LENGTH_HEADER, read_request, write_response
from ccr_deploy.serving.refusals import REFUSALS, TooLargeError, refusal

if TYPE_CHECKING:
    from collections.abc import Generator

    from kserve.protocol.dataplane import DataPlane

_MOST_CONNECTIONS = 1000


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal once it has shut down."""

    def __init__(self, app: FastAPI, *, grace_seconds: int) -> None:
        """A server that gives the requests in flight so long at its end."""
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=grace_seconds,
        )
        super().__init__(config)

    @property
    def in_progress(self) -> int:
        """The requests that were begun and not answered yet."""
        return len(self.server_state.tasks)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leaves signals to the caller."""
        yield


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
