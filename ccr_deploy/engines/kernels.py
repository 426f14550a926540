"""The kernels of a built engine, and a floor for their time on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.backends.kernels import KernelKind, KernelListing, Totals
from ccr_deploy.backends.roofline import GpuLimits, find_limits, floor_ms
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ccr_deploy.engines.sidecar import Sidecar


class ProfileKernels(Record, frozen=True, kw_only=True):
    """The kernels of a batch profile, their number, and the floor of their time for the whole batch.

    `precision` is that of the graph: the engine's, or FP16 for the comparison. `per_image` and `floor_ms` are
    None if the bytes or the work of a kernel are not known.
    """

    precision: EnginePrecision
    listing: KernelListing
    kernel_count: int
    counts: dict[KernelKind, int]
    per_image: Totals | None
    floor_ms: float | None


class EngineKernels(Record, frozen=True, kw_only=True):
    """The kernels of an engine by batch profile.

    Of an INT8 engine, `fp16_profiles` are those of the same stage in FP16, at its smallest and its largest
    batch. `gpu` are the limits of the GPU that the floor is for.
    """

    backend: str
    profiles: tuple[ProfileKernels, ...]
    fp16_profiles: tuple[ProfileKernels, ...]
    gpu: GpuLimits | None


def engine_kernels(sidecar: Sidecar, gpu_name: str | None = None) -> EngineKernels:
    """Return the kernels of an engine; without profiles if its sidecar lists no kernels.

    Args:
        sidecar: the engine's sidecar.
        gpu_name: the GPU to compute the floor for; None computes none.

    Raises:
        WrongUsageError: if the GPU is not known.
    """
    gpu = find_limits(gpu_name) if gpu_name is not None else None
    tf32 = bool(getattr(sidecar.origin.resolved_target.options, "tf32", False))

    def profiles(listings: Iterable[KernelListing], precision: EnginePrecision) -> tuple[ProfileKernels, ...]:
        return tuple(
            ProfileKernels(
                precision=precision,
                listing=listing,
                kernel_count=listing.kernel_count,
                counts=listing.counts,
                per_image=listing.per_image,
                floor_ms=floor_ms(listing, gpu, tf32=tf32) if gpu else None,
            )
            for listing in listings
        )

    return EngineKernels(
        backend=sidecar.key.backend,
        profiles=profiles(sidecar.build.kernels, sidecar.key.precision),
        fp16_profiles=profiles(sidecar.build.fp16_kernels, "fp16"),
        gpu=gpu,
    )
