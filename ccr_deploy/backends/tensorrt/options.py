"""The options of TensorRT and of TensorRT-RTX."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ccr_deploy.backends.options import GpuOptions
from ccr_deploy.core.records import Record

_NotNegative = Annotated[int, Meta(ge=0)]


class TensorRtOptions(Record, GpuOptions, frozen=True, tag_field="backend", tag="tensorrt"):
    """How TensorRT builds.

    `workspace_mib` limits what one layer may use beside its tensors; 0 is TensorRT's own limit.
    `version_compatible` engines run in every TensorRT of the same major version.
    `hardware_compatibility` tells on which other GPUs an engine runs: those of the same compute capability,
    or all from Ampere on.
    """

    workspace_mib: _NotNegative = 0
    tf32: bool = False
    optimization_level: Annotated[int, Meta(ge=0, le=5)] = 3
    version_compatible: bool = False
    hardware_compatibility: Literal["none", "same-compute-capability", "ampere-plus"] = "none"
    timing_cache: bool = True

    def bound_version(self, version: str) -> str:
        """Return of a version-compatible engine's version its first number alone."""
        return f"{version.partition('.')[0]}.x" if self.version_compatible else version


class RtxOptions(Record, GpuOptions, frozen=True, tag_field="backend", tag="tensorrt-rtx", kw_only=True):
    """How TensorRT-RTX builds; its engines run on GPUs of all declared compute capabilities.

    ``["current"]`` builds for this machine's GPU alone.
    """

    workspace_mib: _NotNegative = 0
    tf32: bool = False
    compute_capabilities: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^(\d+\.\d|current)\Z")], ...], Meta(min_length=1)
    ]

    def __post_init__(self) -> None:
        if "current" in self.compute_capabilities and len(self.compute_capabilities) > 1:
            raise ValueError('"current" stands alone')
