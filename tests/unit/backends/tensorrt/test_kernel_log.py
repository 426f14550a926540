"""Reading the kernels from the log of TensorRT-RTX's builder: extracts of real logs, version 1.7.1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.backends.kernels import ConvolutionGroup, executed_convolutions
from ccr_deploy.backends.tensorrt.kernel_log import read_kernels
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from ccr_deploy.backends.kernels import KernelGroup, KernelListing

LOGS = Path(__file__).parent / "kernels"
CONVOLUTIONS = (
    "stem",
    "cell1/input_conv",
    "cell1/t2/hidden_conv",
    "cell3/t2/hidden_conv",
    "sampling/conv1",
)


def read(name: str, *batches: int | None) -> tuple[KernelListing, ...]:
    return read_kernels((LOGS / name).read_text(encoding="utf-8"), CONVOLUTIONS, ("8.9",), batches)


def only(listing: KernelListing, kind: str) -> KernelGroup:
    (found,) = (group for group in listing.kernels if group.kind == kind)
    return found


def test_an_encoder_in_fp16() -> None:
    (listing,) = read("encoder-fp16.txt", 1)
    assert listing.devices == ("8.9",)
    # Lines that synchronise streams are no kernels.
    assert listing.counts == {"convolution": 3, "fused elementwise": 2, "matrix product": 1}
    assert listing.convolutions == (
        ConvolutionGroup(
            inputs=("fp16",),
            weights="fp16",
            outputs=("fp16",),
            names=("stem", "cell1/input_conv", "cell1/t2/hidden_conv", "cell3/t2/hidden_conv"),
        ),
    )
    product = only(listing, "matrix product")  # from a 1x1 convolution
    assert product.multiply_accumulates == 196 * 384 * 1536
    assert product.weight_bytes == 2 * 384 * 1536 + 2 * 4
    stem = listing.kernels[1]
    assert stem.multiply_accumulates == 64 * 112 * 112 * 4 * 3 * 3  # with a padded channel
    assert stem.activation_bytes == 2 * (4 * 224 * 224 + 64 * 112 * 112)
    gates = listing.kernels[-2]
    assert gates.kind == "fused elementwise"
    assert gates.activation_bytes == 2 * 56 * 56 * (128 + 32 + 2 * 32)  # the 128 channels once, of 4 slices


def test_an_encoder_in_int8() -> None:
    (listing,) = read("encoder-int8.txt", 1)
    types = {group.names: (group.inputs, group.weights, group.outputs) for group in listing.convolutions}
    assert types == {
        ("stem",): (("fp16",), "fp16", ("fp16",)),
        ("cell1/input_conv", "cell1/t2/hidden_conv"): (("int8",), "int8", ("fp32",)),
    }
    counts = executed_convolutions([listing], ["stem", "cell1/input_conv", "cell1/t2/hidden_conv"])
    assert counts == {"int8": 2, "fp16": 1, "fp32": 0, "unknown": 0}
    requantizing = only(listing, "fused elementwise")
    assert requantizing.activation_bytes == 64 * 112 * 112 * (2 + 1)


def test_a_dynamic_batch_has_kernels_and_no_bytes() -> None:
    (listing,) = read("classifier-fp16-dynamic.txt", None)
    assert listing.counts == {"resampling": 1, "convolution": 1, "copy": 1, "matrix product": 1}
    assert listing.per_image is None
    assert only(listing, "matrix product").weight_bytes == 2 * (512 * 100 + 100)
    assert only(listing, "shape").count == 1


def test_each_profile_has_its_own_kernels() -> None:
    one, eight = read("classifier-fp16-two-profiles.txt", 1, 8)
    assert (one.batch, eight.batch) == (1, 8)
    assert one.counts == {"convolution": 1, "fused elementwise": 1}
    assert eight.counts == {"convolution": 1, "matrix product": 1}
    assert only(eight, "matrix product").multiply_accumulates == 8 * 512 * 100
    # The kernel's name contains the number of the profile, the convolution's name in the graph does not.
    assert [group.names for group in (*one.convolutions, *eight.convolutions)] == [("sampling/conv1",)] * 2
    first, second = only(one, "convolution"), only(eight, "convolution")
    assert second.activation_bytes == 8 * (first.activation_bytes or 0)
    assert second.weight_bytes == first.weight_bytes


def test_polygraphy_s_prefix_and_indentation_do_not_matter() -> None:
    text = (LOGS / "encoder-int8.txt").read_text(encoding="utf-8")
    logged = "[X] " + text.replace("\n", "\n    ")
    assert read_kernels(logged, CONVOLUTIONS, ("8.9",), [1]) == read("encoder-int8.txt", 1)


def test_another_format_is_an_error_and_not_an_empty_list() -> None:
    text = (LOGS / "encoder-int8.txt").read_text(encoding="utf-8")
    with pytest.raises(EngineError, match="cannot be read: Name: stem"):
        read_kernels(text.replace("Constants:", "Weights:"), CONVOLUTIONS, ("8.9",), [1])
    with pytest.raises(EngineError, match="it has 1 profiles, expected 2"):
        read_kernels(text, CONVOLUTIONS, ("8.9",), [1, 8])
    with pytest.raises(EngineError, match="it has 0 profiles, expected 1"):
        read_kernels("Layers:\n", CONVOLUTIONS, ("8.9",), [1])
