"""The options of the PyTorch reference."""

from __future__ import annotations

from typing import Literal

from ccr_deploy.backends.options import BackendOptions, Threads
from ccr_deploy.core.records import Record


class PyTorchOptions(Record, BackendOptions, frozen=True, tag_field="backend", tag="pytorch"):
    """The options of the PyTorch reference.

    With `tf32`, a GPU computes FP32 convolutions in TF32, which has a shorter mantissa; PyTorch does so by
    default. `compile_mode` is the mode of `torch.compile`; None runs the model eagerly.
    """

    threads: Threads = 0
    device: Literal["cpu", "cuda"] = "cpu"
    tf32: bool = False
    compile_mode: Literal["default", "max-autotune"] | None = None

    @property
    def uses_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device == "cuda"
