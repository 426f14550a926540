"""The options of the PyTorch reference."""

from __future__ import annotations

from typing import Literal

from ccr_deploy.backends.options import BackendOptions, Threads
from ccr_deploy.core.records import Record

GraphSchedule = Literal["iteration-major", "layer-major"]
"""The unroll schedules of the FP16 CUDA graph."""


class PyTorchOptions(Record, BackendOptions, frozen=True, tag_field="backend", tag="pytorch"):
    """The options of the PyTorch reference.

    With `tf32`, a GPU computes FP32 convolutions in TF32, which has a shorter mantissa; PyTorch does so by
    default. `compile_mode` is the mode of `torch.compile`; None runs the model eagerly.

    With `fp16_cuda_graph`, which only a GPU has, the stage is not the reference but the fastest form that is
    known in PyTorch: FP16, channels_last, packed codes, one CUDA graph per batch size. Its value is the
    encoder's unroll schedule.
    """

    threads: Threads = 0
    device: Literal["cpu", "cuda"] = "cpu"
    tf32: bool = False
    compile_mode: Literal["default", "max-autotune"] | None = None
    fp16_cuda_graph: GraphSchedule | None = None

    def __post_init__(self) -> None:
        if self.fp16_cuda_graph and self.device == "cpu":
            raise ValueError('fp16_cuda_graph needs a GPU: set device = "cuda"')

    @property
    def uses_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device == "cuda"
