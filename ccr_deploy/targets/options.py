"""What an engine is built for: its backend's options and its stage's part of a target.

An engine's sidecar holds them, and a product reads it. Whole targets, and the files they come from, are in
`ccr_deploy.targets.schema`.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision, Precision
from ccr_deploy.core.records import Record, canonical_json
from ccr_deploy.core.stages import Schedule

REFERENCE_BACKEND = "pytorch"


class Batch(Record, frozen=True):
    """The smallest, most common and largest number of images in one run of an engine."""

    min: Annotated[int, Meta(ge=1)] = 1
    opt: Annotated[int, Meta(ge=1)] = 1
    max: Annotated[int, Meta(ge=1, le=4096)] = 1

    def __post_init__(self) -> None:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max} are not in this order")


class CpuOptions(Record, frozen=True, kw_only=True):
    """How ONNX Runtime and OpenVINO run; 0 threads are as many as the process may use."""

    threads: Annotated[int, Meta(ge=0, le=1024)] = 0


class OnnxRuntimeOptions(CpuOptions, frozen=True, tag_field="backend", tag="onnxruntime"):
    """How ONNX Runtime runs on a CPU."""


class OpenVinoOptions(CpuOptions, frozen=True, tag_field="backend", tag="openvino"):
    """How OpenVINO runs."""


class PyTorchOptions(Record, frozen=True, kw_only=True, tag_field="backend", tag="pytorch"):
    """How the PyTorch reference runs: on which device, and by `torch.compile` in which mode, if at all.

    `tf32` lets a GPU compute FP32 convolutions with TF32's shorter mantissa, as PyTorch does by itself.
    """

    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    tf32: bool = False
    compile_mode: Literal["default", "max-autotune"] | None = None


class CudaOptions(Record, frozen=True, kw_only=True, tag_field="backend", tag="onnxruntime-cuda"):
    """How ONNX Runtime's CUDA provider computes FP32: with TF32's 10 bits of mantissa, or exactly."""

    tf32: bool = False


class TensorRtOptions(Record, frozen=True, kw_only=True, tag_field="backend", tag="tensorrt"):
    """How TensorRT builds.

    `workspace_mib` limits what one layer may use beside its tensors; 0 is TensorRT's own limit.
    `version_compatible` engines run in every TensorRT of the same major version.
    `hardware_compatibility` tells on which other GPUs an engine runs: those of the same compute capability,
    or all from Ampere on.
    """

    workspace_mib: Annotated[int, Meta(ge=0)] = 0
    tf32: bool = False
    optimization_level: Annotated[int, Meta(ge=0, le=5)] = 3
    version_compatible: bool = False
    hardware_compatibility: Literal["none", "same-compute-capability", "ampere-plus"] = "none"
    timing_cache: bool = True


class RtxOptions(Record, frozen=True, kw_only=True, tag_field="backend", tag="tensorrt-rtx"):
    """How TensorRT-RTX builds; its engines run on GPUs of all declared compute capabilities.

    ``["current"]`` builds for this machine's GPU alone.
    """

    workspace_mib: Annotated[int, Meta(ge=0)] = 0
    tf32: bool = False
    compute_capabilities: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^(\d+\.\d|current)\Z")], ...], Meta(min_length=1)
    ]

    def __post_init__(self) -> None:
        if "current" in self.compute_capabilities and len(self.compute_capabilities) > 1:
            raise ValueError('"current" stands alone')


Options: TypeAlias = (
    OnnxRuntimeOptions | OpenVinoOptions | CudaOptions | PyTorchOptions | TensorRtOptions | RtxOptions
)


class ResolvedTarget(Record, frozen=True):
    """What one stage's engine is built from a target: a stage, and nothing else.

    Only TensorRT's engines are built for certain batches.
    """

    backend: str
    precision: EnginePrecision
    schedule: Schedule | None
    batch: Batch | None
    options: Options

    @property
    def graph_precision(self) -> Precision:
        """The precision of the graph that the engine is built from."""
        return PRECISIONS[self.precision].graph

    @property
    def digest(self) -> str:
        """The SHA-256 over all fields; a target's name, machine and description do not count."""
        return hashlib.sha256(canonical_json(self)).hexdigest()


def bound_version(options: Options, version: str) -> str:
    """What of a library's version engines are bound to: of version-compatible ones its first number alone."""
    if isinstance(options, TensorRtOptions) and options.version_compatible:
        return f"{version.partition('.')[0]}.x"
    return version
