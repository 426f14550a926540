"""Targets: the machines that engines are built for, one TOML file each.

::

    description = "TensorRT on an NVIDIA L4"
    backend = "tensorrt"
    schedule = "iteration-major"

    [precision]
    encoder = "int8"
    classifier = "fp16"
    baseline = "fp32"

    [machine]                  # TensorRT alone: where its engines are built and run
    gpus = ["NVIDIA L4"]
    from_version = "10.3"

    [batch]                    # TensorRT and TensorRT-RTX alone: how many images one run takes
    encoder = { min = 1, opt = 1, max = 1 }

    [options]                  # the backend's own
    workspace_mib = 4096
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from ccr_deploy.bundle import Schedule, Stage
from ccr_deploy.errors import TargetError
from ccr_deploy.precisions import EnginePrecision, Precision
from ccr_deploy.records import Record, read_toml

if TYPE_CHECKING:
    from typing_extensions import Self

REFERENCE_BACKEND = "pytorch"
REFERENCE_TARGET = "pytorch"
"""The target that runs the bundle's weights in PyTorch, iteration by iteration."""
GPU_REFERENCE_TARGET = "pytorch-cuda"
"""The same on a GPU."""

_Version = Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]


class _Section(Record):
    model_config = ConfigDict(strict=True)


class StagePrecisions(_Section):
    """The precision of each stage's engine."""

    encoder: EnginePrecision = "fp32"
    classifier: EnginePrecision = "fp32"
    baseline: Literal["fp32"] = "fp32"


class Batch(_Section):
    """The smallest, most common and largest number of images in one run of an engine."""

    min: Annotated[int, Field(ge=1)] = 1
    opt: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1, le=4096)] = 1

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max} are not in this order")
        return self


class StageBatches(_Section):
    """The batches that each stage's engine is built for."""

    encoder: Batch = Batch()
    classifier: Batch = Batch()
    baseline: Batch = Batch()


class Machine(_Section):
    """Which machines a target is for.

    `gpus` are names as CUDA gives them, or shell patterns of such names. The library's version is at least
    `from_version` and below `below_version`.
    """

    gpus: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    from_version: _Version
    below_version: _Version


class CpuOptions(_Section):
    """How ONNX Runtime and OpenVINO run; 0 threads are as many as the process may use."""

    threads: Annotated[int, Field(ge=0, le=1024)] = 0


class PyTorchOptions(_Section):
    """How the PyTorch reference runs: on which device, and by `torch.compile` in which mode, if at all.

    `tf32` lets a GPU compute FP32 convolutions with TF32's shorter mantissa, as PyTorch does by itself.
    """

    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    tf32: bool = False
    compile_mode: Literal["default", "max-autotune"] | None = None


class CudaOptions(_Section):
    """How ONNX Runtime's CUDA provider computes FP32: with TF32's 10 bits of mantissa, or exactly."""

    tf32: bool = False


class TensorRtOptions(_Section):
    """How TensorRT builds.

    `workspace_mib` limits what one layer may use beside its tensors; 0 is TensorRT's own limit.
    `version_compatible` engines run in every TensorRT of the same major version.
    `hardware_compatibility` tells on which other GPUs an engine runs: those of the same compute capability,
    or all from Ampere on.
    """

    workspace_mib: Annotated[int, Field(ge=0)] = 0
    tf32: bool = False
    optimization_level: Annotated[int, Field(ge=0, le=5)] = 3
    version_compatible: bool = False
    hardware_compatibility: Literal["none", "same-compute-capability", "ampere-plus"] = "none"
    timing_cache: bool = True


class RtxOptions(_Section):
    """How TensorRT-RTX builds; its engines run on GPUs of all declared compute capabilities.

    ``["current"]`` builds for this machine's GPU alone.
    """

    workspace_mib: Annotated[int, Field(ge=0)] = 0
    tf32: bool = False
    compute_capabilities: Annotated[
        tuple[Annotated[str, Field(pattern=r"^(\d+\.\d|current)$")], ...], Field(strict=False, min_length=1)
    ]

    @model_validator(mode="after")
    def _declares_one_or_many(self) -> Self:
        if "current" in self.compute_capabilities and len(self.compute_capabilities) > 1:
            raise ValueError('"current" stands alone')
        return self


Options: TypeAlias = CpuOptions | PyTorchOptions | CudaOptions | TensorRtOptions | RtxOptions


class _Target(_Section):
    description: str
    schedule: Schedule = "iteration-major"
    precision: StagePrecisions = StagePrecisions()


class CpuTarget(_Target):
    """ONNX Runtime or OpenVINO on this machine's CPU."""

    backend: Literal["onnxruntime", "openvino"]
    options: CpuOptions = CpuOptions()


class PyTorchTarget(_Target):
    """The reference."""

    backend: Literal["pytorch"]
    options: PyTorchOptions = PyTorchOptions()


class CudaTarget(_Target):
    """ONNX Runtime's CUDA provider on this machine's GPU."""

    backend: Literal["onnxruntime-cuda"]
    options: CudaOptions = CudaOptions()


class TensorRtTarget(_Target):
    """TensorRT on GPUs of some names."""

    backend: Literal["tensorrt"]
    machine: Machine
    batch: StageBatches = StageBatches()
    options: TensorRtOptions = TensorRtOptions()


class RtxTarget(_Target):
    """TensorRT-RTX on GPUs of some compute capabilities; built on any machine."""

    backend: Literal["tensorrt-rtx"]
    batch: StageBatches = StageBatches()
    options: RtxOptions


Target: TypeAlias = CpuTarget | PyTorchTarget | CudaTarget | TensorRtTarget | RtxTarget
"""A machine that engines are built for."""

_KINDS: dict[str, type[Target]] = {
    "onnxruntime": CpuTarget,
    "openvino": CpuTarget,
    "pytorch": PyTorchTarget,
    "onnxruntime-cuda": CudaTarget,
    "tensorrt": TensorRtTarget,
    "tensorrt-rtx": RtxTarget,
}


class _AnyTarget(_Section):
    """The one field that says which others there are."""

    model_config = ConfigDict(extra="ignore")

    backend: Literal["onnxruntime", "openvino", "pytorch", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx"]


class ResolvedTarget(Record):
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
        return "fp32" if self.precision == "bf16" else self.precision

    @property
    def digest(self) -> str:
        """The SHA-256 over all fields; a target's name, machine and description do not count."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def resolve(
    target: Target, stage: Stage, schedule: Schedule | None = None, precision: EnginePrecision | None = None
) -> ResolvedTarget:
    """The target for one stage; `schedule` and `precision`, where given, over the target's.

    Only an unrolled encoder has a schedule, and the baseline has no precision but its target's.
    """
    unrolled = stage == "encoder" and target.backend != REFERENCE_BACKEND
    batches = target.batch if isinstance(target, TensorRtTarget | RtxTarget) else None
    return ResolvedTarget(
        backend=target.backend,
        precision=(precision if stage != "baseline" else None) or getattr(target.precision, stage),
        schedule=(schedule or target.schedule) if unrolled else None,
        batch=getattr(batches, stage) if batches else None,
        options=target.options,
    )


def uses_gpu(target: Target) -> bool:
    """Whether a target's engines compute on a GPU."""
    if isinstance(target, PyTorchTarget):
        return target.options.device == "cuda"
    return not isinstance(target, CpuTarget)


def bound_version(options: Options, version: str) -> str:
    """What of a library's version engines are bound to: of version-compatible ones its first number alone."""
    if isinstance(options, TensorRtOptions) and options.version_compatible:
        return f"{version.partition('.')[0]}.x"
    return version


def load_target(name_or_path: str) -> Target:
    """The target of a name shipped with the package, or of a TOML file.

    Raises:
        TargetError: there is none, or its TOML is wrong; the message names the field.
    """
    targets = target_files()
    if name_or_path in targets:
        path = targets[name_or_path]
    elif name_or_path.endswith(".toml"):
        path = Path(name_or_path)
    else:
        raise TargetError(
            f"there is no target {name_or_path!r}: choose one of {', '.join(sorted(targets))}, "
            "or name a TOML file"
        )
    kind = _KINDS[read_toml(_AnyTarget, path, error=TargetError).backend]
    return read_toml(kind, path, error=TargetError)


def target_files() -> dict[str, Path]:
    """The targets shipped with the package, by name.

    A wheel carries them inside the package; a checkout has them in ``engines/`` beside it.
    """
    package = Path(str(resources.files("ccr_deploy")))
    folders = (package / "engines", package.parent / "engines")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}
