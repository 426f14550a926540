"""How the PyTorch reference runs."""

from __future__ import annotations

from typing import Literal

from ccr_deploy.backends.options import BackendOptions, Threads
from ccr_deploy.core.records import Record


class PyTorchOptions(Record, BackendOptions, frozen=True, tag_field="backend", tag="pytorch"):
    """How the PyTorch reference runs: on which device, and by `torch.compile` in which mode, if at all.

    `tf32` lets a GPU compute FP32 convolutions with TF32's shorter mantissa, as PyTorch does by itself.
    """

    threads: Threads = 0
    device: Literal["cpu", "cuda"] = "cpu"
    tf32: bool = False
    compile_mode: Literal["default", "max-autotune"] | None = None

    @property
    def uses_gpu(self) -> bool:
        """Whether the device is one."""
        return self.device == "cuda"
