"""Tables and lines about kernels."""

from __future__ import annotations

from msgspec import structs

from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.kernels import ConvolutionGroup, KernelGroup, KernelListing
from ccr_deploy.backends.roofline import GPUS
from ccr_deploy.engines.kernels import EngineKernels, ProfileKernels
from ccr_deploy.reporting.kernel_tables import (
    convolutions_table,
    int8_cost_lines,
    kernels_table,
    kernels_unknown_line,
    traffic_table,
)

ONE = KernelListing(
    devices=("8.0", "8.9"),
    batch=1,
    kernels=(
        KernelGroup(
            kind="convolution",
            computes_in="int8",
            count=2,
            activation_bytes=3_000_000,
            weight_bytes=500_000,
            multiply_accumulates=7_000_000,
        ),
        KernelGroup(
            kind="copy",
            computes_in="fp16",
            count=1,
            activation_bytes=1_000_000,
            weight_bytes=0,
            multiply_accumulates=0,
        ),
    ),
    convolutions=(
        ConvolutionGroup(inputs=("int8", "fp16"), weights="int8", outputs=("fp32",), names=("a", "b")),
    ),
)
FOUR = structs.replace(ONE, batch=4)
DYNAMIC = structs.replace(ONE, batch=None)


def found(*listings: KernelListing, backend: str = "tensorrt-rtx", gpu: str | None = None) -> EngineKernels:
    profiles = tuple(
        ProfileKernels(
            precision="int8",
            listing=listing,
            kernel_count=listing.kernel_count,
            counts=listing.counts,
            per_image=listing.per_image,
            floor_ms=2.0 if gpu and listing.batch else None,
        )
        for listing in listings
    )
    limits = GPUS[gpu] if gpu else None
    return EngineKernels(backend=backend, profiles=profiles, fp16_profiles=(), gpu=limits)


def test_kernels_are_counted_by_kind_for_each_batch() -> None:
    table = kernels_table(found(ONE, FOUR))
    assert table.columns == ("graph", "kernels", "convolution", "copy")
    assert table.rows == (("INT8, batch 1", "3", "2", "1"), ("INT8, batch 4", "3", "2", "1"))
    assert "compiled for compute capability 8.0, 8.9" in table.note
    assert "at run time TensorRT-RTX may specialise" in table.note
    of_tensorrt = kernels_table(found(structs.replace(ONE, devices=("NVIDIA L4",)), backend="tensorrt"))
    assert of_tensorrt.note == "compiled for NVIDIA L4"


def test_activations_and_weights_are_counted_apart_per_image() -> None:
    assert traffic_table(found(ONE, FOUR, DYNAMIC)).rows == (
        ("INT8, batch 1", "7.00", "1.00", "8.00", "14.0"),
        ("INT8, batch 4", "1.75", "0.250", "2.00", "3.50"),
        ("INT8, dynamic batch", *["not known"] * 4),
    )


def test_the_floor_is_per_image_and_per_batch_and_called_a_floor() -> None:
    table = traffic_table(found(ONE, FOUR, DYNAMIC, gpu="orin"))
    assert table.columns[-2:] == ("floor ms", "floor ms/batch")
    assert [row[-2:] for row in table.rows] == [
        ("2.00", "2.00"),
        ("0.500", "2.00"),
        ("not known", "not known"),
    ]
    assert "a floor if every tensor goes through memory, not a prediction" in table.note
    assert "not built for its compute capability, 8.7" in table.note
    assert "not built for" not in traffic_table(found(ONE, gpu="l4")).note
    assert "floor" not in traffic_table(found(ONE)).note


def test_convolutions_of_equal_types_share_a_row_over_all_batches() -> None:
    assert convolutions_table(found(ONE, FOUR)).rows == (("INT8, FP16", "INT8", "FP32", "1, 4", "2", "a, b"),)


def test_int8_is_compared_with_fp16_at_the_smallest_and_the_largest_batch() -> None:
    fp16 = [structs.replace(listing, kernels=listing.kernels[:1]) for listing in (ONE, FOUR)]
    middle = structs.replace(ONE, batch=2)
    facts = BuildFacts(kernels=(ONE, middle, FOUR), fp16_kernels=tuple(fp16))
    heading, first, last = int8_cost_lines(facts)
    assert heading == "INT8 compared with FP16, for compute capability 8.0, 8.9:"
    assert first == (
        "batch 1: INT8 3 kernels, 7.00 MB of activations + 1.00 MB of weights = 8.00 MB an image; "
        "FP16 2 kernels, 6.00 MB of activations + 1.00 MB of weights = 7.00 MB an image"
    )
    assert last.startswith("batch 4: INT8 3 kernels, 1.75 MB")
    dynamic = BuildFacts(kernels=(DYNAMIC,), fp16_kernels=(structs.replace(fp16[0], batch=None),))
    assert int8_cost_lines(dynamic)[1:] == ["dynamic batch: INT8 3 kernels; FP16 2 kernels"]
    assert not int8_cost_lines(BuildFacts(kernels=(ONE,)))


def test_an_int8_engine_says_why_it_is_not_compared() -> None:
    facts = BuildFacts(kernels=(ONE,), fp16_error="In node 3")
    assert int8_cost_lines(facts) == ["the comparison with FP16 is not known: In node 3"]


def test_small_bytes_and_floors_have_three_digits() -> None:
    """As those of a small model, which would be 0.0 MB and 0.000 ms."""
    small = structs.replace(ONE.kernels[0], count=1, activation_bytes=12_345, weight_bytes=0)
    entry = found(structs.replace(ONE, kernels=(small,)), gpu="l4")
    profile = structs.replace(entry.profiles[0], floor_ms=4.1152e-5)
    table = traffic_table(structs.replace(entry, profiles=(profile,)))
    assert table.rows == (("INT8, batch 1", "0.0123", "0.0", "0.0123", "7.00", "0.0000412", "0.0000412"),)


def test_why_kernels_are_not_known_is_one_line_for_each_library() -> None:
    assert "build it on a GPU" in kernels_unknown_line("tensorrt")
    assert "see the log" in kernels_unknown_line("tensorrt-rtx")
    assert kernels_unknown_line("openvino").endswith("openvino does not list them")
