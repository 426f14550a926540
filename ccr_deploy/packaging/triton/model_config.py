"""The part of Triton's ``ModelConfig`` that the repository uses, field by field under its own names.

What each field means is in NVIDIA's ``model_config.proto``; the tests parse what is written here with the
classes generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class DataType(Enum):
    """What a tensor's elements are; `TYPE_STRING` are bytes of any length."""

    TYPE_UINT8 = auto()
    TYPE_FP32 = auto()
    TYPE_STRING = auto()


class Kind(Enum):
    """Where a model's instances run; `KIND_GPU` on every GPU that Triton sees."""

    KIND_CPU = auto()
    KIND_GPU = auto()


@dataclass(frozen=True)
class ModelInput:
    """An input tensor; `dims` are those behind the batch."""

    name: str
    data_type: DataType
    dims: tuple[int, ...]


@dataclass(frozen=True)
class ModelOutput:
    """An output tensor; `label_filename` names its classes for Triton's classification extension."""

    name: str
    data_type: DataType
    dims: tuple[int, ...]
    label_filename: str | None = None


@dataclass(frozen=True)
class InstanceGroup:
    """How many copies of a model run side by side, and where."""

    count: int
    kind: Kind


@dataclass(frozen=True)
class LatestVersions:
    """How many of the highest version numbers are served."""

    num_versions: int


@dataclass(frozen=True)
class VersionPolicy:
    """Which version folders are served."""

    latest: LatestVersions


@dataclass(frozen=True)
class QueuePolicy:
    """How many requests may wait; further ones are refused at once."""

    max_queue_size: int


@dataclass(frozen=True)
class DynamicBatching:
    """Requests that wait are run as one batch; the first of them waits no longer than this for others."""

    max_queue_delay_microseconds: int
    default_queue_policy: QueuePolicy


@dataclass(frozen=True)
class WarmupInput:
    """An input of zeros."""

    data_type: DataType
    dims: tuple[int, ...]
    zero_data: bool = True


@dataclass(frozen=True)
class ModelWarmup:
    """A batch that runs through every instance before the model counts as ready."""

    name: str
    batch_size: int
    inputs: Mapping[str, WarmupInput]


@dataclass(frozen=True)
class ModelParameter:
    """One of the backend's own settings."""

    string_value: str


@dataclass(frozen=True)
class EnsembleStep:
    """One model of an ensemble; the maps go from the model's tensor names to the ensemble's."""

    model_name: str
    model_version: int
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


@dataclass(frozen=True)
class EnsembleScheduling:
    """The models that a request goes through."""

    step: tuple[EnsembleStep, ...]


@dataclass(frozen=True)
class ModelConfig:
    """One model of a repository: its ``config.pbtxt``."""

    name: str
    max_batch_size: int
    input: tuple[ModelInput, ...]
    output: tuple[ModelOutput, ...]
    version_policy: VersionPolicy
    platform: str | None = None
    backend: str | None = None
    default_model_filename: str | None = None
    cc_model_filenames: Mapping[str, str] = field(default_factory=dict)
    instance_group: tuple[InstanceGroup, ...] = ()
    dynamic_batching: DynamicBatching | None = None
    model_warmup: tuple[ModelWarmup, ...] = ()
    parameters: Mapping[str, ModelParameter] = field(default_factory=dict)
    ensemble_scheduling: EnsembleScheduling | None = None
