"""In which precision kernels execute convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.backends.kernels import ConvolutionGroup, KernelListing, executed_convolutions

if TYPE_CHECKING:
    from ccr_deploy.backends.kernels import ElementType


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
