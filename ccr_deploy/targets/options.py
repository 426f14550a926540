"""What an engine is built for: its backend's options and its stage's part of a target.

By the standard library alone, since an engine's sidecar holds them and a product reads it. Whole targets, and
the files they come from, are in `ccr_deploy.targets.schema`.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from ccr_deploy.core.plain_records import Matches, Within, to_json
from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision, Precision
from ccr_deploy.core.stages import Schedule

REFERENCE_BACKEND = "pytorch"

_ANY = sys.maxsize


@dataclass(frozen=True)
class Batch:
    """The smallest, most common and largest number of images in one run of an engine."""

    min: Annotated[int, Within(1, _ANY)] = 1
    opt: Annotated[int, Within(1, _ANY)] = 1
    max: Annotated[int, Within(1, 4096)] = 1

    def __post_init__(self) -> None:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max} are not in this order")


@dataclass(frozen=True)
class CpuOptions:
    """How ONNX Runtime and OpenVINO run; 0 threads are as many as the process may use."""

    threads: Annotated[int, Within(0, 1024)] = 0


@dataclass(frozen=True)
class PyTorchOptions:
    """How the PyTorch reference runs: on which device, and by `torch.compile` in which mode, if at all.

    `tf32` lets a GPU compute FP32 convolutions with TF32's shorter mantissa, as PyTorch does by itself.
    """

    threads: Annotated[int, Within(0, 1024)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    tf32: bool = False
    compile_mode: Literal["default", "max-autotune"] | None = None


@dataclass(frozen=True)
class CudaOptions:
    """How ONNX Runtime's CUDA provider computes FP32: with TF32's 10 bits of mantissa, or exactly."""

    tf32: bool = False


@dataclass(frozen=True)
class TensorRtOptions:
    """How TensorRT builds.

    `workspace_mib` limits what one layer may use beside its tensors; 0 is TensorRT's own limit.
    `version_compatible` engines run in every TensorRT of the same major version.
    `hardware_compatibility` tells on which other GPUs an engine runs: those of the same compute capability,
    or all from Ampere on.
    """

    workspace_mib: Annotated[int, Within(0, _ANY)] = 0
    tf32: bool = False
    optimization_level: Annotated[int, Within(0, 5)] = 3
    version_compatible: bool = False
    hardware_compatibility: Literal["none", "same-compute-capability", "ampere-plus"] = "none"
    timing_cache: bool = True


@dataclass(frozen=True, kw_only=True)
class RtxOptions:
    """How TensorRT-RTX builds; its engines run on GPUs of all declared compute capabilities.

    ``["current"]`` builds for this machine's GPU alone.
    """

    workspace_mib: Annotated[int, Within(0, _ANY)] = 0
    tf32: bool = False
    compute_capabilities: Annotated[tuple[str, ...], Matches(r"\d+\.\d|current")]

    def __post_init__(self) -> None:
        if "current" in self.compute_capabilities and len(self.compute_capabilities) > 1:
            raise ValueError('"current" stands alone')


Options: TypeAlias = CpuOptions | CudaOptions | PyTorchOptions | TensorRtOptions | RtxOptions


@dataclass(frozen=True)
class ResolvedTarget:
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
        return hashlib.sha256(to_json(self, indent=None).encode()).hexdigest()


def bound_version(options: Options, version: str) -> str:
    """What of a library's version engines are bound to: of version-compatible ones its first number alone."""
    if isinstance(options, TensorRtOptions) and options.version_compatible:
        return f"{version.partition('.')[0]}.x"
    return version
