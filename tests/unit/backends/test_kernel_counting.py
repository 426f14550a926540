"""How kernels are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.backends.kernel_counting import Kernel, Tensor, list_kernels, multiply_accumulates
from ccr_deploy.backends.kernels import ConvolutionGroup

if TYPE_CHECKING:
    from ccr_deploy.backends.kernels import ElementType, KernelKind, KernelListing


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


@pytest.mark.parametrize("batch", [1, 8])
def test_a_constant_that_grows_with_the_batch_is_an_activation(batch: int) -> None:
    normalise = kernel(
        "fused elementwise",
        (tensor(batch, 8, 8, 3, name="image", kind="uint8"),),
        (tensor(batch, 1, 8, 8, name="padding"), tensor(1, 3, 1, 1, name="mean", kind="fp32")),
        (tensor(batch, 4, 8, 8, name="y"),),
    )
    # A first dimension that equals the batch is not enough: this one is the number of channels.
    convolution = kernel(
        "convolution",
        (tensor(batch, 4, 8, 8, name="y"),),
        (tensor(8, 4, 3, 3, name="w"),),
        (tensor(batch, 8, 3, 3, name="z"),),
    )
    totals = listed(normalise, convolution, batch=batch).per_image
    assert totals is not None
    assert totals.activation_bytes == 8 * 8 * 3 + 2 * 8 * 8 * (1 + 4 + 4) + 2 * 8 * 3 * 3
    assert totals.weight_bytes == (4 * 3 + 2 * 8 * 4 * 3 * 3) / batch


def test_a_channel_constant_of_images_of_one_pixel_is_a_weight() -> None:
    scaled = kernel("fused elementwise", (tensor(1, 4, 1, 1),), (tensor(1, 4, 1, 1, name="scale"),), ())
    totals = listed(scaled, batch=1).per_image
    assert totals is not None
    assert (totals.activation_bytes, totals.weight_bytes) == (8, 8)
