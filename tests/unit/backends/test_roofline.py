"""The floor of the roofline model."""

from __future__ import annotations

import pytest

from ccr_deploy.backends.kernels import KernelGroup, KernelListing
from ccr_deploy.backends.roofline import GPUS, find_limits, floor_ms
from ccr_deploy.errors import WrongUsageError

L4 = GPUS["l4"]
BOUND_BY_MEMORY = KernelGroup(
    kind="copy",
    computes_in="fp16",
    count=3,
    activation_bytes=200_000_000,
    weight_bytes=100_000_000,
    multiply_accumulates=0,
)


def convolution(computes_in: str) -> KernelGroup:
    return KernelGroup(
        kind="convolution",
        computes_in=computes_in,
        count=1,
        activation_bytes=1,
        weight_bytes=1,
        multiply_accumulates=10**12,
    )


def floor(*groups: KernelGroup, gpu: str = "l4", tf32: bool = False) -> float | None:
    listing = KernelListing(devices=("8.9",), batch=1, kernels=groups, convolutions=())
    return floor_ms(listing, find_limits(gpu), tf32=tf32)


def test_each_kernel_takes_the_longer_of_moving_and_computing() -> None:
    assert floor(BOUND_BY_MEMORY) == pytest.approx(3.0)  # 3 kernels of 300 MB at 300 GB/s
    assert floor(convolution("fp16")) == pytest.approx(1e3 * 2 / L4.fp16)
    # The sum over kernels, not the longer of two sums.
    assert floor(BOUND_BY_MEMORY, convolution("fp16")) == pytest.approx(3.0 + 2e3 / L4.fp16)


@pytest.mark.parametrize(
    ("computes_in", "tf32", "rate"),
    [
        ("fp32", False, L4.fp32),
        ("fp32", True, L4.tf32),
        ("bf16", False, L4.fp16),
        ("int8", False, L4.int8),
        ("unknown", False, L4.int8),  # the highest: a floor stays a floor
    ],
)
def test_the_rate_is_that_of_the_data_type(computes_in: str, tf32: bool, rate: float) -> None:
    assert floor(convolution(computes_in), tf32=tf32) == pytest.approx(2e3 / rate)


def test_what_is_not_known_has_no_floor() -> None:
    unknown = KernelGroup(
        kind="copy",
        computes_in="fp16",
        count=1,
        activation_bytes=None,
        weight_bytes=0,
        multiply_accumulates=0,
    )
    assert floor(BOUND_BY_MEMORY, unknown) is None


def test_tf32_is_no_slower_than_fp32_on_any_gpu() -> None:
    for name in GPUS:
        exact, rounded = floor(convolution("fp32"), gpu=name), floor(convolution("fp32"), gpu=name, tf32=True)
        assert exact is not None
        assert rounded is not None
        assert rounded <= exact


def test_an_unknown_gpu_is_refused_with_the_similar_one() -> None:
    with pytest.raises(WrongUsageError, match="unknown GPU 'rtx-4090': did you mean rtx4090"):
        find_limits("rtx-4090")
