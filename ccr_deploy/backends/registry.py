"""The backends by name.

Every backend's options import this module, so it must not import the backends: it returns `Any`.
"""

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
"""The module and class of each backend; on a machine with a GPU, the first that fits is the default."""


def backend_class(name: str) -> Any:  # noqa: ANN401
    """Return the subclass of `ccr_deploy.backends.base.Backend` with a name, without importing its library.

    Raises:
        KeyError: if there is no backend of that name.
    """
    module, _, kind = BACKENDS[name].partition(":")
    return getattr(import_module(module), kind)


def check_name(name: object) -> str:
    """Return a value read from a file or message if it is the name of a backend.

    Raises:
        FieldError: if it is not.
    """
    if not isinstance(name, str) or name not in BACKENDS:
        raise FieldError(("backend",), f"expected one of {', '.join(sorted(BACKENDS))}, found {name!r}")
    return name


def make_backend(options: Any) -> Any:  # noqa: ANN401
    """Create the `ccr_deploy.backends.base.Backend` for some options.

    Raises:
        MissingExtraError: if its library is not installed.
        EngineError: if the version of its library is not supported.
    """
    return backend_class(options.backend)(options)
