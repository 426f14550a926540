"""KServe's own server with an empty model: ``python -m benchmarks.hosts.empty_kserve HTTP-PORT GRPC-PORT``.

Its latency is that of the framework, of the client and of the network.
"""

from __future__ import annotations

import sys
from typing import Any

import kserve

MODEL = "classifier"


class EmptyModel(kserve.Model):
    """Returns 16 bytes."""

    def load(self) -> bool:
        """Report that the model is ready."""
        self.ready = True
        return True

    async def predict(
        self,
        payload: Any,  # noqa: ANN401
        headers: Any = None,  # noqa: ANN401, ARG002
        response_headers: Any = None,  # noqa: ANN401, ARG002
    ) -> Any:  # noqa: ANN401
        """Return the response to one request."""
        output = kserve.InferOutput("logits", [1, 4], "FP32")
        output._raw_data = bytes(16)
        return kserve.InferResponse(payload.id or "", self.name, [output])


if __name__ == "__main__":
    model = EmptyModel(MODEL)
    model.load()
    http, grpc = (int(port) for port in sys.argv[1:])
    kserve.ModelServer(http_port=http, grpc_port=grpc, workers=1).start([model])
