"""Graph to engine, and engine to outputs. `backend` gives one by name; each imports its library lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.errors import TargetError

if TYPE_CHECKING:
    from ccr_deploy.backends.base import Backend


def backend(name: str) -> Backend:
    """The backend called `name`.

    Raises:
        TargetError: there is none of that name.
        MissingExtraError: its library is not installed.
    """
    if name == "onnxruntime":
        from ccr_deploy.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend()
    if name == "openvino":
        from ccr_deploy.backends.openvino import OpenVinoBackend

        return OpenVinoBackend()
    if name == "pytorch":
        from ccr_deploy.backends.pytorch import PyTorchBackend

        return PyTorchBackend()
    raise TargetError(f"there is no backend {name!r}")
