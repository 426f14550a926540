"""What the server takes from KServe's SDK, without what the SDK's other parts need.

``import kserve`` also loads a client of Kubernetes' API, with the package `kubernetes`, and pandas for the
type of a data frame. A server uses neither. They cost it 40 MB of memory and a third of its time to import,
and a container image 200 MB. So stand-ins take their places while the SDK is imported, and whatever is done
with those raises. The modules of this package take the SDK's names from here.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPLACED = {"kserve.api.kserve_client": "KServeClient", "pandas": "DataFrame"}
"""Modules, and the one class that the SDK takes from each when it is imported."""


class _StandIn(ModuleType):
    """A module that has a single class, of which there are no instances."""

    def __init__(self, name: str, class_name: str) -> None:
        super().__init__(name)
        message = f"the server imports KServe's SDK without {name}"

        def refuse(*_: object, **__: object) -> NoReturn:
            raise ImportError(message, name=name)

        self._message = message
        setattr(self, class_name, type(class_name, (), {"__module__": name, "__new__": refuse}))

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self.__name__}.{name}: {self._message}")


@contextmanager
def _without_unused_parts() -> Iterator[None]:
    """Replace the modules that are not loaded yet, and give their names free again."""
    replaced = {
        name: _StandIn(name, class_name) for name, class_name in _REPLACED.items() if name not in sys.modules
    }
    sys.modules.update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            del sys.modules[name]


with _without_unused_parts():
    from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelRepository
    from kserve.errors import InferenceError, InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
    from kserve.protocol.grpc.servicer import InferenceServicer
    from kserve.protocol.infer_type import RequestedOutput
    from kserve.protocol.rest.server import metrics_handler
    from kserve.protocol.rest.v2_endpoints import V2Endpoints
