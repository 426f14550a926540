"""Targets: the machines that engines are built for, one TOML file each.

::

    description = "ONNX Runtime on this machine's CPU"
    backend = "onnxruntime"
    schedule = "iteration-major"

    [precision]
    encoder = "fp32"
    classifier = "fp32"
    baseline = "fp32"

    [options]              # the backend's own
    threads = 0
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import ConfigDict, Field

from ccr_deploy.bundle import Schedule, Stage
from ccr_deploy.errors import TargetError
from ccr_deploy.precisions import EnginePrecision, Precision
from ccr_deploy.records import Record, read_toml

DEFAULT_TARGET = "cpu"
REFERENCE_BACKEND = "pytorch"
REFERENCE_TARGET = "pytorch"
"""The target that runs the bundle's weights in PyTorch, iteration by iteration."""


class _Section(Record):
    model_config = ConfigDict(strict=True)


class StagePrecisions(_Section):
    """The precision of each stage's engine."""

    encoder: EnginePrecision = "fp32"
    classifier: EnginePrecision = "fp32"
    baseline: Literal["fp32"] = "fp32"


class Options(_Section):
    """How a backend runs; 0 threads are as many as the process may use."""

    threads: Annotated[int, Field(ge=0, le=1024)] = 0


class Target(_Section):
    """A machine that engines are built for."""

    description: str
    backend: Literal["onnxruntime", "openvino", "pytorch"]
    schedule: Schedule = "iteration-major"
    precision: StagePrecisions = StagePrecisions()
    options: Options = Options()


@dataclass(frozen=True)
class ResolvedTarget:
    """What one stage's engine is built from a target: a stage, and nothing else."""

    backend: str
    precision: EnginePrecision
    schedule: Schedule | None
    options: Options

    @property
    def graph_precision(self) -> Precision:
        """The precision of the graph that the engine is built from."""
        return "fp32" if self.precision == "bf16" else self.precision

    @property
    def digest(self) -> str:
        """The SHA-256 over all fields; a target's name and description do not count."""
        text = pydantic.TypeAdapter(ResolvedTarget).dump_json(self)
        return hashlib.sha256(text).hexdigest()


def resolve(
    target: Target, stage: Stage, schedule: Schedule | None = None, precision: EnginePrecision | None = None
) -> ResolvedTarget:
    """The target for one stage; `schedule` and `precision`, where given, over the target's.

    Only an unrolled encoder has a schedule, and the baseline has no precision but its target's.
    """
    unrolled = stage == "encoder" and target.backend != REFERENCE_BACKEND
    return ResolvedTarget(
        backend=target.backend,
        precision=(precision if stage != "baseline" else None) or getattr(target.precision, stage),
        schedule=(schedule or target.schedule) if unrolled else None,
        options=target.options,
    )


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
    return read_toml(Target, path, error=TargetError)


def target_files() -> dict[str, Path]:
    """The targets shipped with the package, by name.

    A wheel carries them inside the package; a checkout has them in ``engines/`` beside it.
    """
    package = Path(str(resources.files("ccr_deploy")))
    folders = (package / "engines", package.parent / "engines")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}
