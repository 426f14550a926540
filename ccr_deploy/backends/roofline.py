"""The roofline model, and a floor for the time of an engine's kernels on a GPU.

A kernel takes at least as long as its bytes take at the GPU's memory bandwidth, and at least as long as its
multiply-accumulates take at the GPU's rate for their data type (S. Williams, A. Waterman, D. Patterson:
"Roofline: An Insightful Visual Performance Model for Multicore Architectures", Communications of the ACM,
2009). The floor of an engine is the sum over its kernels. It is a floor if every tensor goes through memory,
not a prediction: launches, occupancy and the padding of tiles make it slower, caches may make it faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.records import Record
from ccr_deploy.core.suggestions import choose_from
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from ccr_deploy.backends.kernels import ElementType, KernelGroup, KernelListing


class GpuLimits(Record, frozen=True, kw_only=True):
    """The memory bandwidth and the peak rates of a GPU, according to NVIDIA.

    Rates are dense (without structured sparsity), in 10^12 operations per second; a multiply-accumulate is
    two operations. `fp32` is the rate without Tensor Cores, the others are those of the Tensor Cores, `fp16`
    with the faster accumulator.
    """

    title: str
    compute_capability: str
    gigabytes_per_second: float
    fp32: float
    tf32: float
    fp16: float
    int8: float
    source: str


GPUS: dict[str, GpuLimits] = {
    "h100": GpuLimits(
        title="NVIDIA H100 SXM5 80 GB",
        compute_capability="9.0",
        gigabytes_per_second=3350,
        fp32=67,
        tf32=494.5,
        fp16=989.5,
        int8=1979,
        source="NVIDIA H100 data sheet; Tensor Core rates halved, which it gives with sparsity",
    ),
    "l4": GpuLimits(
        title="NVIDIA L4",
        compute_capability="8.9",
        gigabytes_per_second=300,
        fp32=30.3,
        tf32=60,
        fp16=121,
        int8=242.5,
        source="NVIDIA L4 data sheet; Tensor Core rates halved, which it gives with sparsity",
    ),
    "orin": GpuLimits(
        title="NVIDIA Jetson AGX Orin 64 GB",
        compute_capability="8.7",
        gigabytes_per_second=204.8,
        fp32=5.3,
        tf32=21.25,
        fp16=42.5,
        int8=85,
        source="NVIDIA Jetson AGX Orin technical brief: 170 sparse INT8 TOPS of the GPU alone, halved; FP16 "
        "and TF32 a half and a quarter of INT8, as on other Ampere GPUs",
    ),
    "rtx4090": GpuLimits(
        title="NVIDIA GeForce RTX 4090",
        compute_capability="8.9",
        gigabytes_per_second=1008,
        fp32=82.6,
        tf32=82.6,
        fp16=330.3,
        int8=660.6,
        source="NVIDIA Ada GPU Architecture white paper, appendix A",
    ),
}
"""The GPUs by the name that a user gives."""


def find_limits(name: str) -> GpuLimits:
    """Return the limits of a GPU.

    Raises:
        WrongUsageError: if the GPU is not known; the message suggests similar names.
    """
    if name not in GPUS:
        raise WrongUsageError(f"unknown GPU {name!r}: {choose_from(name, tuple(GPUS))}")
    return GPUS[name]


def moving_seconds(moved: float, gigabytes_per_second: float) -> float:
    """Return the time that a number of bytes takes at a memory bandwidth; of a run, it is a floor."""
    return moved / (gigabytes_per_second * 1e9)


def computing_seconds(multiply_accumulates: float, gmac_per_second: float) -> float:
    """Return the time that multiply-accumulates take at a rate in 10^9 a second; of a run, it is a floor."""
    return multiply_accumulates / (gmac_per_second * 1e9)


def floor_ms(listing: KernelListing, gpu: GpuLimits, *, tf32: bool) -> float | None:
    """Return the floor of the time of one run of the whole batch, in milliseconds.

    Args:
        listing: the kernels.
        gpu: the GPU.
        tf32: whether the engine may compute FP32 products in TF32.

    Returns:
        None if the bytes or the work of a kernel are not known.
    """
    seconds = 0.0
    for group in listing.kernels:
        found = _seconds(group, gpu, tf32=tf32)
        if found is None:
            return None
        seconds += group.count * found
    return 1e3 * seconds


def _seconds(group: KernelGroup, gpu: GpuLimits, *, tf32: bool) -> float | None:
    """Return the floor of the time of one kernel, in seconds."""
    if group.activation_bytes is None or group.weight_bytes is None or group.multiply_accumulates is None:
        return None
    return max(
        moving_seconds(group.activation_bytes + group.weight_bytes, gpu.gigabytes_per_second),
        # 10^12 operations are 500 * 10^9 multiply-accumulates.
        computing_seconds(group.multiply_accumulates, 500 * _rate(group.computes_in, gpu, tf32=tf32)),
    )


def _rate(computes_in: ElementType, gpu: GpuLimits, *, tf32: bool) -> float:
    """Return the peak rate for a data type; for a type that has no column, the highest, which is a floor."""
    rates: dict[ElementType, float] = {
        "fp32": max(gpu.fp32, gpu.tf32) if tf32 else gpu.fp32,
        "fp16": gpu.fp16,
        "bf16": gpu.fp16,
    }
    return rates.get(computes_in, gpu.int8)
