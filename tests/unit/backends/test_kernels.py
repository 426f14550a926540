"""How kernels are counted, and in which precision they execute convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.backends.kernels import (
    ConvolutionGroup,
    Kernel,
    KernelListing,
    Tensor,
    executed_convolutions,
    list_kernels,
    multiply_accumulates,
)

if TYPE_CHECKING:
    from ccr_deploy.backends.kernels import ElementType, KernelKind


def tensor(*dimensions: int, name: str = "x", kind: ElementType = "fp16") -> Tensor:
    return Tensor(name, dimensions, kind)


def kernel(
    kind: KernelKind,
    inputs: tuple[Tensor, ...],
    weights: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    nodes: tuple[str, ...] = (),
) -> Kernel:
    return Kernel(kind=kind, inputs=inputs, weights=weights, outputs=outputs, nodes=nodes)


CONVOLUTION = kernel(
    "convolution",
    (tensor(2, 3, 8, 8),),
    (tensor(16, name="bias", kind="fp32"), tensor(16, 3, 3, 3, name="w")),
    (tensor(2, 16, 4, 4, name="y"),),
    ("conv", "conv/relu"),
)
GATES = kernel(
    "fused elementwise",
    (tensor(2, 16, 4, 4, name="y"), tensor(2, 16, 4, 4, name="y"), tensor(2, 4, 4, 4, name="c")),
    (),
    (tensor(2, 4, 4, 4, name="h"),),
)


def listed(*kernels: Kernel, batch: int | None = 2) -> KernelListing:
    return list_kernels(kernels, ["conv"], devices=("8.9",), batch=batch)


def test_the_bytes_and_the_work_of_an_image_are_totals_over_the_batch() -> None:
    totals = listed(CONVOLUTION, GATES).per_image
    assert totals is not None
    convolution = 2 * (2 * 3 * 8 * 8 + 2 * 16 * 4 * 4)
    gates = 2 * (2 * 16 * 4 * 4 + 2 * 2 * 4 * 4 * 4)  # y once, although the kernel reads it twice
    assert totals.activation_bytes == (convolution + gates) / 2
    assert totals.weight_bytes == (2 * 16 * 3 * 3 * 3 + 4 * 16) / 2
    assert totals.multiply_accumulates == 16 * 4 * 4 * 3 * 3 * 3
    assert totals.bytes == totals.activation_bytes + totals.weight_bytes


def test_equal_kernels_are_one_group_and_the_others_their_own() -> None:
    listing = listed(GATES, CONVOLUTION, GATES)
    assert [(group.kind, group.count) for group in listing.kernels] == [
        ("fused elementwise", 2),
        ("convolution", 1),
    ]
    assert listing.counts == {"fused elementwise": 2, "convolution": 1}
    assert listing.kernel_count == 3


def test_the_computation_of_a_shape_is_no_kernel() -> None:
    listing = listed(GATES, kernel("shape", (), (), ()))
    assert listing.kernel_count == 1
    assert "shape" not in listing.counts
    assert listing.per_image == listed(GATES).per_image


@pytest.mark.parametrize(
    ("data", "weights", "output", "expected"),
    [
        ((5, 512), (512, 100), (5, 100), 5 * 512 * 100),
        ((1, 384, 196), (1, 1536, 384), (1, 1536, 196), 384 * 1536 * 196),
        ((4, 384, 196), (1, 1536, 384), (4, 1536, 196), 4 * 384 * 1536 * 196),
    ],
)
def test_a_matrix_product_is_counted_by_its_dimensions(
    data: tuple[int, ...], weights: tuple[int, ...], output: tuple[int, ...], expected: int
) -> None:
    product = kernel("matrix product", (tensor(*data),), (tensor(*weights),), (tensor(*output),))
    assert multiply_accumulates(product) == expected


def test_a_dynamic_dimension_makes_totals_unknown_instead_of_wrong() -> None:
    dynamic = kernel("copy", (tensor(-1, 4),), (), (tensor(-1, 4, name="y"),))
    assert listed(CONVOLUTION, dynamic, batch=None).per_image is None
    assert listed(CONVOLUTION, dynamic).per_image is None
    assert listed(CONVOLUTION, dynamic).kernel_count == 2


def test_a_type_without_a_known_size_makes_totals_unknown() -> None:
    odd = kernel("copy", (tensor(4, kind="unknown"),), (), (tensor(4, name="y"),))
    assert listed(odd).per_image is None


def test_the_data_types_of_a_convolution_are_listed_with_its_name() -> None:
    with_residual = kernel(
        "convolution",
        (tensor(1, 3, 8, 8, kind="int8"), tensor(1, 16, 4, 4, name="r", kind="fp16")),
        (tensor(16, 3, 3, 3, name="w", kind="int8"), tensor(16, name="scale", kind="fp32")),
        (tensor(1, 16, 4, 4, name="y", kind="fp32"),),
        ("x_DequantizeLinear", "conv"),
    )
    assert listed(with_residual).convolutions == (
        ConvolutionGroup(inputs=("int8", "fp16"), weights="int8", outputs=("fp32",), names=("conv",)),
    )


def group(inputs: ElementType, weights: ElementType, *names: str) -> ConvolutionGroup:
    return ConvolutionGroup(inputs=(inputs, "fp32"), weights=weights, outputs=("fp32",), names=names)


def listing_of(*groups: ConvolutionGroup) -> KernelListing:
    return KernelListing(devices=("8.9",), batch=1, kernels=(), convolutions=groups)


@pytest.mark.parametrize(
    ("inputs", "weights", "expected"),
    [
        ("int8", "int8", "int8"),
        ("fp32", "int8", "fp32"),  # dequantized before the convolution
        ("int8", "fp16", "fp16"),
        ("fp16", "fp16", "fp16"),
        ("fp16", "fp32", "fp32"),
        ("unknown", "int8", "int8"),
        ("unknown", "unknown", "unknown"),
    ],
)
def test_a_convolution_is_executed_in_the_higher_precision_of_inputs_and_weights(
    inputs: ElementType, weights: ElementType, expected: str
) -> None:
    counts = executed_convolutions([listing_of(group(inputs, weights, "conv"))], ["conv"])
    assert counts == {"int8": 0, "fp16": 0, "fp32": 0, "unknown": 0} | {expected: 1}


def test_of_several_profiles_the_highest_precision_counts() -> None:
    profiles = [
        listing_of(group("int8", "int8", "a", "b")),
        listing_of(group("int8", "int8", "a"), group("fp16", "fp16", "b")),
    ]
    counts = executed_convolutions(profiles, ["a", "b", "c"])
    assert counts == {"int8": 1, "fp16": 1, "fp32": 0, "unknown": 1}
