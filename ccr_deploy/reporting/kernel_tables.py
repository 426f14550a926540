"""Tables and lines about the kernels of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from ccr_deploy.backends.kernels import KernelKind
from ccr_deploy.reporting.table import Table, significant

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.backends.build_facts import BuildFacts
    from ccr_deploy.backends.kernels import ConvolutionGroup, KernelListing, Totals
    from ccr_deploy.engines.kernels import EngineKernels, ProfileKernels

COUNTING = (
    "bytes: each activation tensor that a kernel reads or writes, and each of its weights, counts once per "
    "kernel; a tensor of which a kernel reads a slice counts whole; work: multiply-accumulates of "
    "convolutions and matrix products, with padded channels"
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
        ("MMAC", lambda profile: _millions(profile, lambda totals: totals.multiply_accumulates, decimals=0)),
    ]
    if found.gpu:
        columns += [
            ("floor ms", lambda profile: _floor(profile, profile.listing.batch)),
            ("floor ms/batch", lambda profile: _floor(profile, 1)),
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


def int8_cost_lines(facts: BuildFacts) -> list[str]:
    """Return lines that compare an INT8 engine's kernels with FP16, at its smallest and largest batch."""
    if facts.fp16_error:
        return [f"the comparison with FP16 is not known: {facts.fp16_error}"]
    fp16 = {listing.batch: listing for listing in facts.fp16_kernels}
    pairs = [(own, fp16[own.batch]) for own in facts.kernels if own.batch in fp16]
    if not pairs:
        return []
    return [
        f"INT8 compared with FP16, for {_compiled_for(pairs[0][0])}:",
        *(
            f"{batch_text(own)}: INT8 {summary(own.kernel_count, own.per_image)}; "
            f"FP16 {summary(other.kernel_count, other.per_image)}"
            for own, other in dict.fromkeys((pairs[0], pairs[-1]))
        ),
    ]


def kernels_unknown_line(backend: str) -> str:
    """Return why the kernels of a backend's engine are not known."""
    reasons = {
        "tensorrt": "the engine inspector did not list them when the engine was built: build it on a GPU",
        "tensorrt-rtx": "the builder's log did not list them: see the log beside the engine",
    }
    reason = reasons.get(backend, f"{backend} does not list them")
    return f"the kernels are not known: {reason}"


def batch_text(listing: KernelListing) -> str:
    """Return the batch of a listing as text."""
    return "dynamic batch" if listing.batch is None else f"batch {listing.batch}"


def summary(kernel_count: int, totals: Totals | None) -> str:
    """Return a number of kernels and their bytes as text; without bytes that are not known."""
    kernels = f"{kernel_count} kernels"
    if totals is None:
        return kernels
    activations, weights, both = (
        significant(value / 1e6, 1) for value in (totals.activation_bytes, totals.weight_bytes, totals.bytes)
    )
    return f"{kernels}, {activations} MB of activations + {weights} MB of weights = {both} MB an image"


def _compiled_for(listing: KernelListing) -> str:
    """Return the devices: compute capabilities, which are numbers, or GPUs."""
    devices = ", ".join(listing.devices)
    return f"compute capability {devices}" if devices[:1].isdigit() else devices


def _traffic_notes(found: EngineKernels) -> list[str]:
    notes = [COUNTING]
    if any(profile.listing.batch is None for profile in found.profiles):
        notes.append("of a dynamic batch they are not known: build for a target with fixed batches")
    if gpu := found.gpu:
        rates = f"{gpu.fp32:g} FP32, {gpu.tf32:g} TF32, {gpu.fp16:g} FP16, {gpu.int8:g} INT8"
        notes.append(
            f"floor: roofline model of {gpu.title}, {gpu.gigabytes_per_second:g} GB/s, 10^12 operations/s: "
            f"{rates} ({gpu.source}); a floor if every tensor goes through memory, not a prediction: "
            "launches and occupancy make it slower, caches may make it faster"
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


def _millions(profile: ProfileKernels, value: Callable[[Totals], float], decimals: int = 1) -> str:
    return significant(value(profile.per_image) / 1e6, decimals) if profile.per_image else _NOT_KNOWN


def _floor(profile: ProfileKernels, images: int | None) -> str:
    """Return the floor of a batch, divided by a number of images."""
    return significant(profile.floor_ms / images) if images and profile.floor_ms is not None else _NOT_KNOWN


def _types(types: tuple[str, ...]) -> str:
    return ", ".join(name.upper() for name in types)
