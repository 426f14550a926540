"""The frameworks of the local server alone: ``python -m benchmarks.hosts.bare_server HTTP-PORT GRPC-PORT``.

uvicorn and gRPC's asyncio server on uvloop's event loop, with one response that is written in advance, of the
size of the demo's classifier. No request is checked and nothing is computed: the latency is that of the
client, the network and the frameworks, the least of a server that uses them.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import grpc
import kserve  # noqa: F401 -- registers the protocol's messages
import uvicorn
import uvloop
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest, ModelInferResponse

_LOGITS = bytes(16)
_OUTPUT = {"name": "logits", "datatype": "FP32", "shape": [1, 4]}
_MESSAGE = ModelInferResponse(model_name="classifier", outputs=[_OUTPUT], raw_output_contents=[_LOGITS])
_JSON = json.dumps(
    {"model_name": "classifier", "outputs": [{**_OUTPUT, "parameters": {"binary_data_size": len(_LOGITS)}}]}
).encode()
_BODY = _JSON + _LOGITS
_HEADERS = [
    (b"content-type", b"application/octet-stream"),
    (b"inference-header-content-length", b"%d" % len(_JSON)),
    (b"content-length", b"%d" % len(_BODY)),
]


async def _app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


async def _infer(request: object, context: object) -> ModelInferResponse:  # noqa: ARG001
    return _MESSAGE


class _Handler(grpc.GenericRpcHandler):
    """Answers every method with the same message."""

    def service(self, handler_call_details: object) -> grpc.RpcMethodHandler:  # noqa: ARG002
        """Return the handler."""
        return grpc.unary_unary_rpc_method_handler(
            _infer, ModelInferRequest.FromString, ModelInferResponse.SerializeToString
        )


async def _serve(http_port: str, grpc_port: str) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handler(),))
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    listener = socket.create_server(("127.0.0.1", int(http_port)))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(_app, http="httptools", log_config=None, access_log=False, lifespan="off")
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
