"""The notations of the engine inspector; the files in `layers` are made up in the format of each version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from ccr_deploy.backends.kernels import KernelListing, executed_convolutions
from ccr_deploy.backends.tensorrt.inspector import read_layers
from ccr_deploy.core.precisions import Precision
from ccr_deploy.errors import EngineError

LAYERS = Path(__file__).parent / "layers"
NONE = dict.fromkeys((*get_args(Precision), "unknown"), 0)
DYNAMIC = "N/A due to dynamic shapes"
GPU = "NVIDIA L4 (compute capability 8.9)"


def read(text: str, names: list[str], batches: tuple[int | None, ...] = (None,)) -> KernelListing:
    """Return the only listing of an engine."""
    (listing,) = read_layers(text, names, GPU, batches)
    return listing


def executed(*layers: object, names: tuple[str, ...] = ("conv",)) -> dict[str, int]:
    """Return how many convolutions have each precision, without those that none has."""
    listings = read_layers(json.dumps({"Layers": layers}), names, GPU, [None])
    return {name: count for name, count in executed_convolutions(listings, names).items() if count}


def types(listing: KernelListing) -> dict[str, tuple[str, str]]:
    """Return the types of data and weights of each convolution."""
    return {name: (group.inputs[0], group.weights) for group in listing.convolutions for name in group.names}


def convolution(
    datatype: str = DYNAMIC, weights: str | None = None, tactic: str | None = None, **more: object
) -> dict[str, object]:
    """Return a convolution as TensorRT 8.6 and 10 describe it."""
    layer: dict[str, object] = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "ParameterType": "Convolution",
        "Inputs": [{"Name": "x", "Dimensions": [-1, 4, 8, 8], "Format/Datatype": datatype}],
        "Outputs": [{"Name": "y", "Dimensions": [-1, 8, 8, 8], "Format/Datatype": DYNAMIC}],
    }
    if weights:
        layer["Weights"] = {"Type": weights, "Count": 288}
    if tactic:
        layer["TacticName"] = tactic
    return layer | more


def test_tensorrt_8_6_with_a_dynamic_batch() -> None:
    """No tensor has a type there: weights and tactics tell. Names are the only list of nodes."""
    text = (LAYERS / "tensorrt-8.6-int8-dynamic.json").read_text()
    names = ["stem", "cell1/input_conv", "cell1/t1/hidden_conv", "binarizer"]
    listing = read(text, names)
    assert types(listing) == {
        "stem": ("fp16", "fp16"),
        "cell1/input_conv": ("int8", "int8"),
        "cell1/t1/hidden_conv": ("int8", "int8"),
    }
    # The region that Myelin compiled tells nothing about the binarizer in it.
    assert executed_convolutions([listing], names) == NONE | {"fp16": 1, "int8": 2, "unknown": 1}
    assert listing.counts == {"convolution": 3, "copy": 2, "other": 1}
    assert (listing.devices, listing.batch, listing.per_image) == ((GPU,), None, None)


def test_tensorrt_10_with_a_dynamic_batch() -> None:
    """A kernel executes two convolutions; generated kernels, which only touch one, do not count."""
    text = (LAYERS / "tensorrt-10.3-int8-dynamic.json").read_text()
    names = ["stem", "cell1/t1/input_conv", "cell1/t2/input_conv", "cell1/t1/hidden_conv", "binarizer"]
    listing = read(text, names)
    assert types(listing) == {
        "stem": ("fp16", "fp16"),
        "cell1/t1/input_conv": ("int8", "int8"),
        "cell1/t2/input_conv": ("int8", "int8"),
        "cell1/t1/hidden_conv": ("int8", "int8"),
        "binarizer": ("fp32", "fp32"),
    }
    assert executed_convolutions([listing], names) == NONE | {"int8": 3, "fp16": 1, "fp32": 1}
    assert listing.counts == {"convolution": 3, "fused elementwise": 2, "matrix product": 1}


def test_tensorrt_11_with_a_fixed_batch() -> None:
    """Bytes and work are known. The hidden convolution is quantized in the graph, and computed in FP32."""
    text = (LAYERS / "tensorrt-11.4-int8-batch8.json").read_text()
    names = ["stem", "cell1/input_conv", "cell1/t1/hidden_conv"]
    listing = read(text, names, (8,))
    assert types(listing) == {
        "stem": ("fp16", "fp16"),
        "cell1/input_conv": ("int8", "int8"),
        "cell1/t1/hidden_conv": ("fp32", "fp32"),
    }
    assert executed_convolutions([listing], names) == NONE | {"int8": 1, "fp16": 1, "fp32": 1}
    assert listing.counts == {"convolution": 3, "fused elementwise": 1, "copy": 1}
    stem = listing.kernels[1]
    assert stem.activation_bytes == 8 * (3 * 48 * 48 + 64 * 24 * 24) * 2
    assert stem.weight_bytes == 64 * 3 * 3 * 3 * 2
    assert stem.multiply_accumulates == 8 * 64 * 24 * 24 * 3 * 3 * 3
    assert listing.per_image is not None


def test_weights_of_tensorrt_10_have_a_shape() -> None:
    """Without it the work of a convolution would not be known: the inspector states only their number."""
    layer = convolution(
        "Row major linear FP16 format", "Half", OutMaps=8, Kernel=[3, 3], Bias={"Type": "Half", "Count": 8}
    )
    layer["Inputs"] = [{"Name": "x", "Dimensions": [2, 4, 8, 8], "Format/Datatype": "Half"}]
    layer["Outputs"] = [{"Name": "y", "Dimensions": [2, 8, 8, 8], "Format/Datatype": "Half"}]
    (kernel,) = read(json.dumps({"Layers": [layer]}), ["conv"], (2,)).kernels
    assert kernel.multiply_accumulates == 2 * 8 * 8 * 8 * 4 * 3 * 3
    assert (kernel.activation_bytes, kernel.weight_bytes) == (2 * (4 + 8) * 64 * 2, (288 + 8) * 2)


INT8_TACTIC = "sm80_xmma_fprop_implicit_gemm_i8f16_i8i32_f32_nhwckrsc_nhwc_tilesize64x64x64"
FP16_TACTIC = "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize64x64x64"


@pytest.mark.parametrize(
    ("layer", "precision"),
    [
        (convolution(weights="Int8"), "int8"),
        (convolution(weights="Half"), "fp16"),
        (convolution(weights="Float"), "fp32"),
        (convolution(tactic=INT8_TACTIC), "int8"),
        (convolution(tactic=FP16_TACTIC), "fp16"),
        (convolution("Channel major FP16 format where channel % 8 == 0"), "fp16"),
        (convolution("Thirty-two wide channel vectorized row major Int8 format."), "int8"),
        (convolution("Row major linear FP32"), "fp32"),
        (convolution("Half", "Half", FP16_TACTIC), "fp16"),
        (convolution(), "unknown"),
        (convolution(tactic="__myl_ConvI8i8_i8i32_"), "unknown"),
        (convolution("BFloat16"), "unknown"),
        (convolution("Row major linear FP8 format"), "unknown"),
        # What contradicts is not believed.
        (convolution(weights="Int8", tactic=FP16_TACTIC), "unknown"),
        (convolution("Row major linear FP32", tactic=INT8_TACTIC), "unknown"),
        (convolution("Half", "Int8", INT8_TACTIC), "unknown"),
        # INT8 needs inputs and weights in INT8.
        (convolution("Half", "Int8"), "fp16"),
        (convolution("Row major linear FP32", "Int8"), "fp32"),
    ],
)
def test_weights_tactic_and_tensors_decide(layer: dict[str, object], precision: str) -> None:
    assert executed(layer) == {precision: 1}


@pytest.mark.parametrize("key", ["Datatype", "DataType", "Format/Datatype"])
def test_the_type_of_a_tensor_has_several_names(key: str) -> None:
    assert executed(convolution(Inputs=[{"Name": "x", "Format": "(NHWC)", key: "Int8"}])) == {"int8": 1}


def test_a_convolution_counts_by_the_highest_precision_of_its_kernels() -> None:
    """Of two batch profiles, one may execute it in another precision."""
    second = convolution("Half", "Half", Name="conv [profile 1]")
    text = json.dumps({"Layers": [convolution("Int8", "Int8"), second]})
    listings = read_layers(text, ["conv"], GPU, [1, 8])
    assert [(listing.batch, types(listing)["conv"]) for listing in listings] == [
        (1, ("int8", "int8")),
        (8, ("fp16", "fp16")),
    ]
    assert executed_convolutions(listings, ["conv"]) == NONE | {"fp16": 1}


def test_numbers_of_generated_kernels_are_profiles_only_if_all_kernels_have_one() -> None:
    """In an engine of TensorRT 10 they count the regions that Myelin compiled."""
    generated = [convolution("Int8", "Int8", Name=f"conv_myl{number}_3") for number in (0, 1)]
    listings = read_layers(json.dumps({"Layers": generated}), ["conv"], GPU, [1, 8])
    assert [(listing.batch, listing.kernel_count) for listing in listings] == [(1, 1), (8, 1)]
    for layers, batches in ((generated, [8]), ([*generated, convolution()], [1, 8])):
        (listing,) = read_layers(json.dumps({"Layers": layers}), ["conv"], GPU, batches)
        assert listing.kernel_count == len(layers)


def test_without_metadata_the_name_lists_the_nodes() -> None:
    layer = convolution(weights="Int8", Name="w + QuantizeLinear_8 + layer2/0/conv1 + PWN(relu)")
    assert executed(layer, names=("layer2/0/conv1",)) == {"int8": 1}


def test_a_node_may_be_in_a_kernel_that_is_no_convolution() -> None:
    """The kernel that quantizes a convolution's input lists the convolution in its metadata."""
    metadata = "[ONNX Layer: conv]\x1e[ONNX Layer: stem_QuantizeLinear]"
    layers = [convolution("Int8", LayerType=kind, ParameterType=kind) for kind in ("kgen", "Reformat")]
    assert executed(*[layer | {"Metadata": metadata} for layer in layers]) == {"unknown": 1}


def test_an_opaque_region_tells_nothing_about_the_convolutions_in_it() -> None:
    region = {
        "Name": "{ForeignNode[a...b]}",
        "LayerType": "Myelin",
        "Inputs": [{"Name": "x", "Format/Datatype": "Int8"}],
        "Outputs": [{"Name": "y", "Format/Datatype": "Int8"}],
        "Metadata": "[ONNX Layer: a]\x1f[ONNX Layer: b]",
    }
    assert executed(region, names=("a", "b")) == {"unknown": 2}


def test_an_engine_without_details_has_no_known_kernels() -> None:
    """An engine that was built without detailed verbosity lists only the names of its layers."""
    assert read_layers('{"Layers": ["conv", "relu"], "Bindings": []}', ["conv"], GPU, [None]) == ()


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"Bindings": []}',
        '{"Layers": 3}',
        '{"Layers": [{"Name": "conv [profile 4]"}]}',
        '{"Layers": [{"LayerType": "CaskConvolution", "Weights": {"Count": "many"}}]}',
        '{"Layers": [{"LayerType": "conv", "Weights": {"Count": 9}, "OutMaps": 1, "Kernel": [0]}]}',
    ],
)
def test_text_that_is_not_inspector_output_is_refused(answer: str) -> None:
    with pytest.raises(EngineError, match="inspector's output cannot be read"):
        read_layers(answer, [], GPU, [None])
