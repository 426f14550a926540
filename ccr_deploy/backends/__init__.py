"""Graph to engine, and engine to outputs. `backend` gives one by name; each imports its library lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.errors import TargetError
from ccr_deploy.targets.options import (
    CudaOptions,
    OnnxRuntimeOptions,
    OpenVinoOptions,
    PyTorchOptions,
    RtxOptions,
    TensorRtOptions,
)

if TYPE_CHECKING:
    from ccr_deploy.backends.base import Backend
    from ccr_deploy.targets.options import Options


def backend(name: str, options: Options) -> Backend:
    """The backend called `name`, with the options of a target.

    Raises:
        TargetError: there is none of that name that takes such options.
        MissingExtraError: its library is not installed.
        EngineError: its library is of a version that this project cannot use.
    """
    if name == "onnxruntime" and isinstance(options, OnnxRuntimeOptions):
        from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeBackend

        return OnnxRuntimeBackend(options)
    if name == "onnxruntime-cuda" and isinstance(options, CudaOptions):
        from ccr_deploy.backends.onnxruntime.cuda import OnnxRuntimeCudaBackend

        return OnnxRuntimeCudaBackend(options)
    if name == "openvino" and isinstance(options, OpenVinoOptions):
        from ccr_deploy.backends.openvino.cpu import OpenVinoBackend

        return OpenVinoBackend(options)
    if name == "pytorch" and isinstance(options, PyTorchOptions):
        from ccr_deploy.backends.pytorch import PyTorchBackend

        return PyTorchBackend(options)
    if name in {"tensorrt", "tensorrt-rtx"} and isinstance(options, TensorRtOptions | RtxOptions):
        from ccr_deploy.backends.tensorrt.backend import TensorRtBackend

        return TensorRtBackend(options)
    raise TargetError(f"there is no backend {name!r} that takes {type(options).__name__}")
