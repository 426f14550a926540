"""Tables and lines about the kernels of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from ccr_deploy.backends.kernels import KernelKind
from ccr_deploy.reporting.table import Table, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.backends.kernels import ConvolutionGroup, KernelListing, Totals
    from ccr_deploy.engines.kernels import EngineKernels, ProfileKernels
    from ccr_deploy.engines.sidecar import Sidecar

COUNTING = (
    "bytes: each activation tensor that a kernel reads or writes, and each of its weights, counts once per "
    "kernel; work: multiply-accumulates of convolutions and matrix products, with padded channels"
)
"""How bytes and work are counted."""
_NOT_KNOWN = "not known"


def kernels_table(found: EngineKernels) -> Table:
    """Return a row for each batch profile: its kernels by kind."""
    profiles = (*found.profiles, *found.fp16_profiles)
    kinds = [kind for kind in get_args(KernelKind) if any(kind in profile.counts for profile in profiles)]
    listing = found.profiles[0].listing
    note = f"compiled for {_compiled_for(listing)}"
    if found.backend == "tensorrt-rtx":
        note += "; what the ahead-of-time builder chose: at run time TensorRT-RTX may specialise for shapes"
    return Table.of(
        "Kernels",
        profiles,
        [
            ("graph", _name),
            ("kernels", lambda profile: str(profile.kernel_count)),
            *((kind, _count(kind)) for kind in kinds),
        ],
        note=note,
    )


def traffic_table(found: EngineKernels) -> Table:
    """Return a row for each batch profile: bytes and work per image, and the floor of the time on a GPU."""
    columns: list[tuple[str, Callable[[ProfileKernels], str]]] = [
        ("graph", _name),
        ("activations MB", lambda profile: _millions(profile, lambda totals: totals.activation_bytes)),
        ("weights MB", lambda profile: _millions(profile, lambda totals: totals.weight_bytes)),
        ("total MB", lambda profile: _millions(profile, lambda totals: totals.bytes)),
        ("MMAC", lambda profile: _millions(profile, lambda totals: totals.multiply_accumulates, digits=0)),
    ]
    if found.gpu:
        columns += [
            ("floor ms", _floor_per_image),
            ("floor ms/batch", lambda profile: number(profile.floor_ms, 3) or _NOT_KNOWN),
        ]
    return Table.of(
        "Bytes and work per image",
        (*found.profiles, *found.fp16_profiles),
        columns,
        note="; ".join(_traffic_notes(found)),
    )


def convolutions_table(found: EngineKernels) -> Table:
    """Return a row for each combination of data types, with the convolutions that have it."""
    batches: dict[ConvolutionGroup, list[str]] = {}
    for profile in found.profiles:
        for group in profile.listing.convolutions:
            batches.setdefault(group, []).append(batch_text(profile.listing).removeprefix("batch "))
    return Table.of(
        "Data types of the convolutions",
        batches.items(),
        [
            ("inputs", lambda entry: _types(entry[0].inputs)),
            ("weights", lambda entry: _types((entry[0].weights,))),
            ("outputs", lambda entry: _types(entry[0].outputs)),
            ("batch", lambda entry: ", ".join(entry[1])),
            ("number", lambda entry: str(len(entry[0].names))),
            ("names", lambda entry: ", ".join(entry[0].names)),
        ],
        note="the second type of the inputs is that of a tensor that the kernel adds",
    )


def int8_cost_lines(sidecar: Sidecar) -> list[str]:
    """Return lines that compare an INT8 engine's kernels with FP16, at its smallest and largest batch."""
    fp16 = {listing.batch: listing for listing in sidecar.build.fp16_kernels}
    pairs = [(own, fp16[own.batch]) for own in sidecar.build.kernels if own.batch in fp16]
    return [
        f"INT8: {_summary(own)}; FP16: {_summary(other)} ({batch_text(own)}, {_compiled_for(own)})"
        for own, other in dict.fromkeys((*pairs[:1], *pairs[-1:]))
    ]


def kernels_unknown_line(sidecar: Sidecar) -> str:
    """Return why the kernels of an engine are not known."""
    reasons = {
        "tensorrt": "the engine inspector did not list them when the engine was built: build it on a GPU",
        "tensorrt-rtx": "the builder's log did not list them: see the log beside the engine",
    }
    reason = reasons.get(sidecar.key.backend, f"{sidecar.key.backend} does not list them")
    return f"the kernels are not known: {reason}"


def batch_text(listing: KernelListing) -> str:
    """Return the batch of a listing as text."""
    return "dynamic batch" if listing.batch is None else f"batch {listing.batch}"


def _summary(listing: KernelListing) -> str:
    totals = listing.per_image
    kernels = f"{listing.kernel_count} kernels"
    if totals is None:
        return kernels
    activations, weights = totals.activation_bytes / 1e6, totals.weight_bytes / 1e6
    return f"{kernels}, {activations:.1f} MB of activations and {weights:.1f} MB of weights an image"


def _compiled_for(listing: KernelListing) -> str:
    """Return the devices: compute capabilities, which are numbers, or GPUs."""
    devices = ", ".join(listing.devices)
    return f"compute capability {devices}" if devices[:1].isdigit() else devices


def _traffic_notes(found: EngineKernels) -> list[str]:
    notes = [COUNTING]
    if any(profile.listing.batch is None for profile in found.profiles):
        notes.append("of a dynamic batch they are not known: build for a target with fixed batches")
    if gpu := found.gpu:
        rates = f"{gpu.fp32:g} FP32, {gpu.fp16:g} FP16, {gpu.int8:g} INT8"
        notes.append(
            f"floor: roofline model of {gpu.title}, {gpu.gigabytes_per_second:g} GB/s, 10^12 operations/s: "
            f"{rates} ({gpu.source}); a floor and not a prediction: without launches, occupancy and caches"
        )
        if (
            found.backend == "tensorrt-rtx"
            and gpu.compute_capability not in found.profiles[0].listing.devices
        ):
            notes.append(f"the engine is not built for its compute capability, {gpu.compute_capability}")
    return notes


def _name(profile: ProfileKernels) -> str:
    return f"{profile.precision.upper()}, {batch_text(profile.listing)}"


def _count(kind: KernelKind) -> Callable[[ProfileKernels], str]:
    return lambda profile: str(profile.counts.get(kind, 0))


def _millions(profile: ProfileKernels, value: Callable[[Totals], float], digits: int = 1) -> str:
    return f"{value(profile.per_image) / 1e6:.{digits}f}" if profile.per_image else _NOT_KNOWN


def _floor_per_image(profile: ProfileKernels) -> str:
    batch = profile.listing.batch
    return number(profile.floor_ms / batch, 3) if batch and profile.floor_ms is not None else _NOT_KNOWN


def _types(types: tuple[str, ...]) -> str:
    return ", ".join(name.upper() for name in types)
