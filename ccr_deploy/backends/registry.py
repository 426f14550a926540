"""The backends by name. It stands below them all, and so knows none of their types."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ccr_deploy.core.field_errors import FieldError

BACKENDS = {
    "tensorrt": "ccr_deploy.backends.tensorrt.backend:TensorRtBackend",
    "tensorrt-rtx": "ccr_deploy.backends.tensorrt.backend:RtxBackend",
    "onnxruntime-cuda": "ccr_deploy.backends.onnxruntime.cuda:OnnxRuntimeCudaBackend",
    "onnxruntime": "ccr_deploy.backends.onnxruntime.cpu:OnnxRuntimeBackend",
    "openvino": "ccr_deploy.backends.openvino.cpu:OpenVinoBackend",
    "pytorch": "ccr_deploy.backends.pytorch.backend:PyTorchBackend",
}
"""Where each backend's class is; on a machine with a GPU the first that fits it is the default."""


def backend_class(name: str) -> Any:  # noqa: ANN401
    """Return the `ccr_deploy.backends.base.Backend` class of a name; its library need not be installed.

    Raises:
        KeyError: there is none.
    """
    module, _, kind = BACKENDS[name].partition(":")
    return getattr(import_module(module), kind)


def check_name(name: object) -> str:
    """Return the name of a backend that a file or a message holds.

    Raises:
        FieldError: there is no such backend.
    """
    if not isinstance(name, str) or name not in BACKENDS:
        raise FieldError(("backend",), f"expected one of {', '.join(sorted(BACKENDS))}, found {name!r}")
    return name


def make_backend(options: Any) -> Any:  # noqa: ANN401
    """Return the `ccr_deploy.backends.base.Backend` that takes some options.

    Raises:
        MissingExtraError: its library is not installed.
        EngineError: its library is of a version that this project cannot use.
    """
    return backend_class(options.backend)(options)
