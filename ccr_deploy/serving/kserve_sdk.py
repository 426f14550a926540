"""The names that the server uses from KServe's SDK, imported without pandas and the Kubernetes client.

``import kserve`` also imports a client of Kubernetes' API (the package `kubernetes`), and pandas for one
type annotation. A server uses neither, and they take 40 MB of memory, a third of the import time, and 200
MB of a container image. So placeholder modules replace them while the SDK is imported; any use of a
placeholder raises. The other modules of this package import the SDK's names from here.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPLACED = {"kserve.api.kserve_client": "KServeClient", "pandas": "DataFrame"}
"""The replaced modules, and the only class that the SDK imports from each."""


class _Placeholder(ModuleType):
    """A module with a single class that cannot be instantiated."""

    def __init__(self, name: str, class_name: str) -> None:
        super().__init__(name)
        message = f"the server imports KServe's SDK without {name}, which it does not need"

        def refuse(*_: object, **__: object) -> NoReturn:
            raise ImportError(message, name=name)

        self._message = message
        setattr(self, class_name, type(class_name, (), {"__module__": name, "__new__": refuse}))

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self.__name__}.{name}: {self._message}")


@contextmanager
def _without_unused_parts() -> Iterator[None]:
    """Replace the modules that are not loaded yet, and remove the placeholders afterwards."""
    replaced = {
        name: _Placeholder(name, class_name)
        for name, class_name in _REPLACED.items()
        if name not in sys.modules
    }
    sys.modules.update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            del sys.modules[name]


with _without_unused_parts():
    from kserve import InferInput, InferOutput, InferRequest, InferResponse, ModelRepository
    from kserve.errors import InferenceError, InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady
    from kserve.metrics import PREDICT_HIST_TIME
    from kserve.model import InferenceModel
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
    from kserve.protocol.grpc.servicer import InferenceServicer
    from kserve.protocol.infer_type import RequestedOutput
    from kserve.protocol.rest.server import metrics_handler
    from kserve.protocol.rest.v2_endpoints import V2Endpoints
