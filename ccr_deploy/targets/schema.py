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

from pydantic import ConfigDict, Field

from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record, read_toml
from ccr_deploy.core.stages import DEFAULT_SCHEDULE, Schedule, Stage
from ccr_deploy.errors import TargetError
from ccr_deploy.targets.options import (
    REFERENCE_BACKEND,
    Batch,
    CpuOptions,
    CudaOptions,
    PyTorchOptions,
    ResolvedTarget,
    RtxOptions,
    TensorRtOptions,
)

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

    gpus: Annotated[tuple[str, ...], Field(min_length=1)]
    from_version: _Version
    below_version: _Version


class _Target(_Section):
    description: str
    schedule: Schedule = DEFAULT_SCHEDULE
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
    folders = (package / "targets" / "shipped", package.parent / "engines")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}
