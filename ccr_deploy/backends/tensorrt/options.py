"""The options of TensorRT and of TensorRT-RTX."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ccr_deploy.backends.options import GpuOptions
from ccr_deploy.core.records import Record

_NotNegative = Annotated[int, Meta(ge=0)]


class TensorRtOptions(Record, GpuOptions, frozen=True, tag_field="backend", tag="tensorrt"):
    """The options of a TensorRT build.

    `workspace_mib` limits the scratch memory of a layer, in MiB; 0 is TensorRT's default limit.
    `version_compatible` engines run in later TensorRT versions of the same major version.
    `hardware_compatibility` selects the other GPUs that an engine runs on: those of the same compute
    capability, or all since Ampere.
    """

    workspace_mib: _NotNegative = 0
    tf32: bool = False  # TensorRT's default is True: FP32 would then differ from the reference
    optimization_level: Annotated[int, Meta(ge=0, le=5)] = 3
    version_compatible: bool = False
    hardware_compatibility: Literal["none", "same-compute-capability", "ampere-plus"] = "none"
    timing_cache: bool = True

    def bound_version(self, version: str) -> str:
        """Return the whole version, or only the major version for version-compatible engines."""
        return f"{version.partition('.')[0]}.x" if self.version_compatible else version


class RtxOptions(Record, GpuOptions, frozen=True, tag_field="backend", tag="tensorrt-rtx", kw_only=True):
    """The options of a TensorRT-RTX build, whose engines run on GPUs of all listed compute capabilities.

    The compute capabilities ``["current"]`` build only for this machine's GPU.
    """

    workspace_mib: _NotNegative = 0
    tf32: bool = False
    compute_capabilities: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^(\d+\.\d|current)\Z")], ...], Meta(min_length=1)
    ]

    def __post_init__(self) -> None:
        if "current" in self.compute_capabilities and len(self.compute_capabilities) > 1:
            raise ValueError('"current" cannot be combined with other compute capabilities')
