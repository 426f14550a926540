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

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record, read_toml
from ccr_deploy.core.stages import DEFAULT_SCHEDULE, Schedule, Stage
from ccr_deploy.errors import TargetError
from ccr_deploy.targets.options import (
    REFERENCE_BACKEND,
    Batch,
    CudaOptions,
    OnnxRuntimeOptions,
    OpenVinoOptions,
    PyTorchOptions,
    ResolvedTarget,
    RtxOptions,
    TensorRtOptions,
)

REFERENCE_TARGET = "pytorch"
"""The target that runs the bundle's weights in PyTorch, iteration by iteration."""
GPU_REFERENCE_TARGET = "pytorch-cuda"
"""The same on a GPU."""

_Version = Annotated[str, Meta(pattern=r"^\d+(\.\d+)*\Z")]


class StagePrecisions(Record, frozen=True):
    """The precision of each stage's engine."""

    encoder: EnginePrecision = "fp32"
    classifier: EnginePrecision = "fp32"
    baseline: Literal["fp32"] = "fp32"


class StageBatches(Record, frozen=True):
    """The batches that each stage's engine is built for."""

    encoder: Batch = Batch()
    classifier: Batch = Batch()
    baseline: Batch = Batch()


class Machine(Record, frozen=True):
    """Which machines a target is for.

    `gpus` are names as CUDA gives them, or shell patterns of such names. The library's version is at least
    `from_version` and below `below_version`.
    """

    gpus: Annotated[tuple[str, ...], Meta(min_length=1)]
    from_version: _Version
    below_version: _Version


class _Target(Record, frozen=True, kw_only=True):
    description: str
    schedule: Schedule = DEFAULT_SCHEDULE
    precision: StagePrecisions = StagePrecisions()

    @property
    def backend(self) -> str:
        """The backend's name."""
        return str(self.__struct_config__.tag)


class OnnxRuntimeTarget(_Target, frozen=True, tag_field="backend", tag="onnxruntime"):
    """ONNX Runtime on this machine's CPU."""

    options: OnnxRuntimeOptions = OnnxRuntimeOptions()


class OpenVinoTarget(_Target, frozen=True, tag_field="backend", tag="openvino"):
    """OpenVINO on this machine's CPU."""

    options: OpenVinoOptions = OpenVinoOptions()


class PyTorchTarget(_Target, frozen=True, kw_only=True, tag_field="backend", tag="pytorch"):
    """The reference."""

    options: PyTorchOptions = PyTorchOptions()


class CudaTarget(_Target, frozen=True, kw_only=True, tag_field="backend", tag="onnxruntime-cuda"):
    """ONNX Runtime's CUDA provider on this machine's GPU."""

    options: CudaOptions = CudaOptions()


class TensorRtTarget(_Target, frozen=True, kw_only=True, tag_field="backend", tag="tensorrt"):
    """TensorRT on GPUs of some names."""

    machine: Machine
    batch: StageBatches = StageBatches()
    options: TensorRtOptions = TensorRtOptions()


class RtxTarget(_Target, frozen=True, kw_only=True, tag_field="backend", tag="tensorrt-rtx"):
    """TensorRT-RTX on GPUs of some compute capabilities; built on any machine."""

    batch: StageBatches = StageBatches()
    options: RtxOptions


Target: TypeAlias = (
    OnnxRuntimeTarget | OpenVinoTarget | PyTorchTarget | CudaTarget | TensorRtTarget | RtxTarget
)
"""A machine that engines are built for."""


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
    return not isinstance(target, OnnxRuntimeTarget | OpenVinoTarget)


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
    return read_toml(Target, path, error=TargetError)  # type: ignore[arg-type] # a union


def target_files() -> dict[str, Path]:
    """The targets shipped with the package, by name.

    A wheel carries them inside the package; a checkout has them in ``engines/`` beside it.
    """
    package = Path(str(resources.files("ccr_deploy")))
    folders = (package / "targets" / "shipped", package.parent / "engines")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}
