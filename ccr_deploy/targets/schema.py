"""Targets: the machines that engines are built for, one TOML file each.

::

    description = "TensorRT on an NVIDIA L4"
    backend = "tensorrt"
    schedule = "iteration-major"

    [precision]
    encoder = "int8"
    classifier = "fp16"
    baseline = "fp32"

    [machine]                  # only TensorRT: the machines that build and run its engines
    gpus = ["NVIDIA L4"]
    from_version = "10.3"
    below_version = "12"

    [batch]                    # only TensorRT and TensorRT-RTX: the batch sizes of one run
    encoder = [1, 8, 32, 64]   # each has a profile of its own
    dynamic = false            # true: one profile from 1 to the only size, for a server that does not pad

    [options]                  # options of the backend
    workspace_mib = 4096
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

from ccr_deploy.backends.machine import Machine
from ccr_deploy.backends.options import BackendOptions, Batch, BatchSizes
from ccr_deploy.backends.registry import backend_class, check_name
from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record, convert, read_toml
from ccr_deploy.core.stages import DEFAULT_SCHEDULE, STAGES, Schedule, Stage
from ccr_deploy.core.suggestions import choose_from
from ccr_deploy.errors import TargetError
from ccr_deploy.targets.resolved import ResolvedTarget

REFERENCE_TARGET = "pytorch"
"""The target that runs the bundle's weights in PyTorch, iteration by iteration."""
GPU_REFERENCE_TARGET = "pytorch-cuda"
"""The target that does the same on a GPU."""


class StagePrecisions(Record, frozen=True):
    """The precision of each stage's engine."""

    encoder: EnginePrecision = "fp32"
    classifier: EnginePrecision = "fp32"
    baseline: Literal["fp32"] = "fp32"


class StageBatches(Record, frozen=True):
    """The batch sizes that each stage's engine is built for; see `ccr_deploy.backends.options.Batch`."""

    encoder: BatchSizes = (1,)
    classifier: BatchSizes = (1,)
    baseline: BatchSizes = (1,)
    dynamic: bool = False

    def __post_init__(self) -> None:
        for stage in STAGES:
            try:
                self.of(stage)
            except ValueError as error:  # noqa: PERF203 -- three stages
                raise FieldError((stage,), str(error)) from error

    def of(self, stage: Stage) -> Batch:
        """Return the batch sizes of one stage's engine."""
        return Batch(getattr(self, stage), self.dynamic)


class _TargetFile:
    """The format of a target's file, in which the key ``backend`` determines the other fields."""

    __slots__ = ()

    @classmethod
    def from_builtins(cls, content: dict[str, Any]) -> Target:
        """Read a target.

        Raises:
            FieldError: if there is no such backend, or a field is missing, unknown or wrong.
        """
        fields = dict(content)
        name = check_name(fields.pop("backend", None))
        kind = backend_class(name)
        for table, is_known in (("machine", kind.has_machines), ("batch", kind.has_batch_profiles)):
            if table in fields and not is_known:
                raise FieldError((table,), f"not supported by the backend {name}")
        if kind.has_machines and "machine" not in fields:
            raise FieldError(("machine",), "missing")
        _check_form_of_batches(fields.get("batch"))
        if kind.has_batch_profiles:  # without the table, engines are built for batch 1
            fields.setdefault("batch", {})
        options = fields.get("options", {})
        if not isinstance(options, dict):
            raise FieldError(("options",), f"expected object, found {options!r:.40}")
        if "backend" in options:
            raise FieldError(("options", "backend"), "unknown field")
        # Records of options are tagged with the backend, which the file names only once, at the top.
        fields["options"] = {**options, "backend": name}
        return convert(Target, fields)


def _check_form_of_batches(batch: object) -> None:
    for stage, sizes in batch.items() if isinstance(batch, dict) else ():
        if isinstance(sizes, dict):  # the form of earlier versions
            raise FieldError(
                ("batch", stage),
                "expected a list of batch sizes, such as [1, 8, 32, 64], instead of { min, opt, max }",
            )


class Target(Record, _TargetFile, frozen=True, kw_only=True):
    """A target: a machine that engines are built for, and how they are built.

    `machine` and `batch` are None for backends whose targets do not name them.
    """

    description: str
    schedule: Schedule = DEFAULT_SCHEDULE
    precision: StagePrecisions = StagePrecisions()
    machine: Machine | None = None
    batch: StageBatches | None = None
    options: BackendOptions

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.options.backend

    @property
    def is_reference(self) -> bool:
        """Whether it is the PyTorch reference, which engines are compared with."""
        return backend_class(self.backend).is_reference

    @property
    def has_dynamic_batch(self) -> bool:
        """Whether its engines have one profile from batch 1 on, for servers that do not pad batches."""
        return self.batch is not None and self.batch.dynamic

    @property
    def uses_gpu(self) -> bool:
        """Whether its engines compute on a GPU."""
        return self.options.uses_gpu


def resolve(
    target: Target, stage: Stage, schedule: Schedule | None = None, precision: EnginePrecision | None = None
) -> ResolvedTarget:
    """Resolve a target for one stage.

    Args:
        target: the target.
        stage: the stage.
        schedule: the unroll schedule, instead of the target's; ignored except for an unrolled encoder.
        precision: the precision, instead of the target's.
    """
    # A field that does not affect the engine is None, so that it does not change the digest in the key.
    unrolled = stage == "encoder" and not target.is_reference
    return ResolvedTarget(
        precision=precision or getattr(target.precision, stage),
        schedule=(schedule or target.schedule) if unrolled else None,
        batch=target.batch.of(stage) if target.batch else None,
        options=target.options,
    )


def load_target(name_or_path: str) -> Target:
    """Load a target that is shipped with the package, by name, or a target from a TOML file.

    Raises:
        TargetError: if there is no such target, or its TOML is wrong; the message names the field.
    """
    targets = target_files()
    if name_or_path in targets:
        path = targets[name_or_path]
    elif name_or_path.endswith(".toml"):
        path = Path(name_or_path)
    else:
        raise TargetError(
            f"unknown target {name_or_path!r}: {choose_from(name_or_path, sorted(targets))}, "
            "or give the path of a TOML file"
        )
    return read_toml(_TargetFile, path, error=TargetError)  # type: ignore[return-value]


def target_files() -> dict[str, Path]:
    """Return the files of the targets that are shipped with the package, by name.

    A wheel contains them in the package; a checkout has them in ``engines/`` beside the package.
    """
    package = Path(str(resources.files("ccr_deploy")))
    folders = (package / "targets" / "shipped", package.parent / "engines")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}
